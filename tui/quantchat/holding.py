"""A model in use is held by a shared lock on its folder, which ends with the process that took it.

`flock` on the folder itself: nothing is written there, and no list of users can be stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_held: list[int] = []


def hold(path: str | Path) -> None:
    """Hold a model until this process ends or holds another one; without effect where locks do not work."""
    release()
    with contextlib.suppress(OSError):
        _held.append(_locked(path, fcntl.LOCK_SH))


def release() -> None:
    """Hold no model any more."""
    while _held:
        os.close(_held.pop())


@contextlib.contextmanager
def alone_with(path: str | Path) -> Iterator[bool]:
    """Keep others from loading a model; yield False if one has it loaded."""
    try:
        lock = _locked(path, fcntl.LOCK_EX)
    except OSError as error:
        # A file system without locks tells nothing about users.
        yield error.errno not in (errno.EAGAIN, errno.EACCES)
        return
    try:
        yield True
    finally:
        os.close(lock)


def _locked(path: str | Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holders(path: str | Path) -> list[int]:
    """Return the process ids that hold a lock on a path, as far as the kernel's list names them."""
    status = os.stat(path)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found: list[int] = []
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
                found.append(int(fields[4]))
    return sorted(set(found) - {os.getpid()})
