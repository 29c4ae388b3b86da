"""Processes of a test, by the words of their command lines."""

from __future__ import annotations

import psutil


def command_line(process: psutil.Process) -> list[str]:
    """The words of a command line; none of one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(word: str, parent: int | None = None) -> list[psutil.Process]:
    """Living descendants of a process, this one if none is named, with the word in their command lines."""
    family = psutil.Process(parent).children(recursive=True)
    return [child for child in family if word in " ".join(command_line(child))]
