"""Opens the files that a user gives to a job; whatever is no ordinary file of text is refused by name."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quantchat.errors import JobError

UNREADABLE = "The calibration file cannot be read"
REMEDY = "Name a file of text: .jsonl with a conversation per line, or .txt"
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open an ordinary file that is not empty, for reading bytes.

    Raises:
        JobError: if it cannot be read, also within the block.
    """
    try:
        with _file(path) as file:
            if file.read(2) in WIDE:
                raise JobError(UNREADABLE, f"{path} is UTF-16, and only UTF-8 is read", REMEDY)
            file.seek(0)
            yield file
    except OSError as error:
        raise JobError(UNREADABLE, f"{path}: {error.strerror or error}", "Check the path") from error


def _file(path: Path) -> BinaryIO:
    try:
        # A pipe that nobody writes into would hold up the job for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise JobError(UNREADABLE, f"{str(path)!r} is no name of a file", "Check the path") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        os.close(descriptor)
        raise JobError(UNREADABLE, f"{path} {_what(status)}", REMEDY)
    return open(descriptor, "rb")


def _what(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    return "is empty" if stat.S_ISREG(status.st_mode) else "is a pipe or a device, and a file is needed"


def size_of(file: BinaryIO) -> int:
    """Return the length of an open file in bytes."""
    return os.fstat(file.fileno()).st_size
