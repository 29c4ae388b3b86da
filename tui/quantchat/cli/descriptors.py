"""Standard input, output and error as a caller may leave them: closed, or set not to wait."""

from __future__ import annotations

import os
import select
import sys

CHUNK = 1 << 16
STDIN, STDOUT, STDERR = 0, 1, 2


def open_missing() -> None:
    """Put something in the place of closed ones, before a file or a socket of ours gets their numbers.

    Standard input is then empty, errors go nowhere, and answers are refused as they are by a closed descriptor.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == STDERR else os.O_RDONLY)
    sys.stdin = sys.stdin or os.fdopen(STDIN, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(STDOUT, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w", encoding="utf-8", closefd=False)


def read_some(descriptor: int) -> bytes:
    """Wait for input and return a piece of it; nothing at its end."""
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            select.select([descriptor], [], [])


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however long the other side takes.

    Raises:
        OSError: if it cannot be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
