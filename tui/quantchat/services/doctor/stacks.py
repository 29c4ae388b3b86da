"""The other interpreters that the settings name for engine processes, and what each of them holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from quantchat import paths
from quantchat.domain.backends import Interpreters
from quantchat.domain.stacks import (
    CURRENT_TRANSFORMERS,
    LIBRARIES,
    NEEDS,
    OLDEST_PYTHON,
    RETIRED,
    is_current,
    pip_line,
)
from quantchat.services.doctor.findings import Finding, Level
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.nvml import ended
from quantchat.services.doctor.probe import PROBE_SECONDS
from quantchat.store.settings import load_settings

SETTINGS = {"python": "", "gptq_python": "gptq", "awq_python": "awq"}
"""The settings of `[engine]`, and the method whose folders each is for; empty for all."""
TITLE = "Other interpreters"
MODULES = ("torch", "transformers", "gptqmodel", *(library.module for library in RETIRED.values()))
IPEX = "intel-extension-for-pytorch"
TAIL = 300


class Stack(NamedTuple):
    """What an interpreter said of itself.

    Attributes:
        python: Its version.
        errors: What modules raised when they were imported.
        died: How the import ended it; empty if it came to its end.
    """

    python: tuple[int, ...]
    versions: dict[str, str]
    errors: dict[str, str]
    died: str = ""


class Trouble(NamedTuple):
    """What is wrong with an interpreter."""

    words: str
    fix: str = ""
    level: Level = "red"


class _Line(msgspec.Struct, frozen=True):
    python: tuple[int, int, int] | None = None
    versions: dict[str, str] = {}
    module: str = ""
    error: str = ""
    end: bool = False


def look_at_stacks(machine: Machine) -> Iterator[Finding]:
    """Ask every interpreter that is set, once."""
    chosen = configured(load_settings()[0].engine)
    if not chosen:
        yield Finding(id="stacks", title=TITLE, found="none is set: quantchat's own runs all engines")
    for python, settings in chosen.items():
        asked = ask(machine, python)
        if isinstance(asked, str):
            yield _finding(python, settings, Trouble(asked))
            continue
        troubles = list(troubles_of(asked, python, [SETTINGS[name] for name in settings]))
        yield from (_finding(python, settings, trouble) for trouble in troubles)
        if not any(trouble.level == "red" for trouble in troubles):
            yield _finding(python, settings, Trouble(described(asked), level="green"))


def configured(interpreters: Interpreters) -> dict[str, list[str]]:
    """Return the interpreters by path, with the settings that name each."""
    found: dict[str, list[str]] = {}
    for name in SETTINGS:
        if python := getattr(interpreters, name):
            found.setdefault(os.path.expanduser(python), []).append(name)
    return found


def ask(machine: Machine, python: str) -> Stack | str:
    """Ask an interpreter what it holds; a text says why it gave no answer."""
    script = str(paths.PACKAGE / "engine" / "stackprobe.py")
    # Engines are looked for where the user's own commands are.
    clean = {"PYTHONPATH": "", "PYTHONHOME": "", "PATH": machine.env.get("PATH", os.defpath)}
    ran = machine.run(
        python, script, ",".join((*NEEDS, *LIBRARIES)), ",".join(MODULES), seconds=PROBE_SECONDS, env=clean
    )
    if ran is None:
        return "it cannot be started: there is no such program, or it may not be run."
    lines = [line for line in map(_read, ran.out.splitlines()) if line is not None]
    first = next((line for line in lines if line.python), None)
    if first is None or first.python is None:
        if ran.status is None:
            return f"it did not answer within {PROBE_SECONDS:g} s. {_last(ran.err or ran.out)}".strip()
        return f"it is no Python interpreter. {_last(ran.err or ran.out)}".strip()
    before = ran.out.strip().partition("\n")[0]
    if _read(before) is None:
        # The engine's events go through its standard output.
        return f"it writes before it runs a program: {before[:TAIL]}"
    errors = {line.module: line.error for line in lines if line.error}
    died = "" if any(line.end for line in lines) else _death(ran.status, ran.err)
    return Stack(first.python, first.versions, errors, died)


def _read(line: str) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError:
        return None


def _death(status: int | None, err: str) -> str:
    if status is None:
        return f"its imports took more than {PROBE_SECONDS:g} s"
    return f"an import ended it with {ended(status)}. {_last(err)}".strip()


def _last(text: str) -> str:
    return next((line.strip()[:TAIL] for line in reversed(text.splitlines()) if line.strip()), "")


def troubles_of(stack: Stack, python: str, methods: list[str]) -> Iterator[Trouble]:
    """Judge what an interpreter holds against what it is set for."""
    if stack.python < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Trouble(f"it is Python {_dotted(stack.python)}; engines need {wanted} or newer.")
        return
    if missing := [name for name in (*NEEDS, "torch", "transformers") if name not in stack.versions]:
        yield Trouble(f"it lacks {', '.join(missing)}.", pip_line(python, missing))
    for method in methods:
        yield from _missing_library(stack, python, method)
    for module, error in stack.errors.items():
        yield Trouble(f"{module} cannot be imported there: {error[:TAIL]}")
    if stack.died:
        yield Trouble(stack.died)


def _missing_library(stack: Stack, python: str, method: str) -> Iterator[Trouble]:
    held = stack.versions
    if is_current(held) or "transformers" not in held:
        return
    if not method:
        if not {RETIRED["gptq"].package, RETIRED["awq"].package} & held.keys():
            words = "it loads unquantized folders alone, without auto-gptq, autoawq or gptqmodel"
            yield Trouble(f"{words} with transformers {CURRENT_TRANSFORMERS}.", level="yellow")
        return
    package = RETIRED[method].package
    if package not in held:
        yield Trouble(f"it lacks {package}, which loads {method.upper()} folders there.", pip_line(python, [package]))
    elif method == "awq" and IPEX not in held:
        yield Trouble(f"autoawq computes there on GPUs alone: on the CPU it needs {IPEX}.", level="yellow")


def described(stack: Stack) -> str:
    """Name what an interpreter holds, in one line."""
    libraries = ", ".join(f"{name} {stack.versions[name]}" for name in LIBRARIES if name in stack.versions)
    return f"Python {_dotted(stack.python)}: {libraries}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _finding(python: str, settings: list[str], trouble: Trouble) -> Finding:
    names = ", ".join(f"engine.{name}" for name in settings)
    joint = ": " if trouble.level == "green" else ", "
    found = f"{names} = {python}{joint}{trouble.words}"
    return Finding(id=f"stack.{settings[0]}", title=TITLE, level=trouble.level, found=found, fix=trouble.fix)
