"""Starts an engine process in an interpreter without quantchat: `PYTHON .../quantchat/engine/launch.py ARGUMENTS`.

Only the package quantchat is taken from where this file lies; all else must be that interpreter's own. Older Pythons
read this file too, up to where it sends them away, and know no `-P`.
"""

from __future__ import annotations

import sys
from os.path import dirname, realpath

if sys.path and realpath(sys.path[0]) == dirname(realpath(__file__)):
    # The modules beside this file have names of the libraries'.
    del sys.path[0]

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def provide(package: Path) -> None:
    """Make the package at a path importable by its name, and nothing beside it."""
    spec = spec_from_file_location(package.name, package / "__init__.py", submodule_search_locations=[str(package)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{package} is no Python package")
    module = module_from_spec(spec)
    sys.modules[package.name] = module
    spec.loader.exec_module(module)


def unfit() -> str:
    """Say why this interpreter cannot run an engine, and what helps; empty if it can."""
    from quantchat.domain import stacks

    if sys.version_info < stacks.OLDEST_PYTHON:
        wanted = ".".join(map(str, stacks.OLDEST_PYTHON))
        return f"{sys.executable} is Python {sys.version.split()[0]}; engines need {wanted} or newer."
    missing = [name for name in stacks.NEEDS if find_spec(name) is None]
    if missing:
        return f"{sys.executable} lacks {', '.join(missing)}: {stacks.pip_line(sys.executable, missing)}"
    return ""


def main() -> None:
    """Run the engine with this program's arguments."""
    provide(Path(__file__).resolve().parent.parent)
    if reason := unfit():
        from quantchat.domain.stacks import UNFIT_STATUS

        print(reason, file=sys.stderr)  # noqa: T201 - the parent has it read from the log
        sys.exit(UNFIT_STATUS)
    from quantchat.engine.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
