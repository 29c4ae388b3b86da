"""Prints what an interpreter holds, a line of JSON each: run there by this file's path, by older Pythons too.

    PYTHON .../stackprobe.py PACKAGE,PACKAGE,... MODULE,MODULE,...

First its version and those of the packages, of which nothing is imported; then what each module says to an import.
"""

from __future__ import annotations

import sys
from os.path import dirname, realpath

if sys.path and realpath(sys.path[0]) == dirname(realpath(__file__)):
    # The modules beside this file have names of the libraries'.
    del sys.path[0]

import importlib.util
import json


def versions(packages: list[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    from importlib import metadata

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def said_by(module: str) -> str:
    """Import a module; return what it raised, empty for nothing."""
    try:
        importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - libraries also exit
        return f"{type(error).__name__}: {error}"
    return ""


def main(packages: str, modules: str) -> None:
    """Print the lines."""
    held = versions(packages.split(","))
    _print({"python": list(sys.version_info[:3]), "versions": held})
    for module in filter(None, modules.split(",")):
        if importlib.util.find_spec(module) is not None:
            _print({"module": module, "error": said_by(module)})
    _print({"end": True})


def _print(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(*sys.argv[1:3])
