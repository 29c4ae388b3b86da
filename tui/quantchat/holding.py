"""A model in use is held by a shared lock on its folder, which ends with the process that took it.

`flock` on the folder itself: nothing is written there, and no list of users can be stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 2.0
"""Seconds that a hold waits for somebody who only looks whether a model is free."""
POLL = 0.02

_held: list[int] = []


def hold(path: str | Path) -> bool:
    """Hold a model until this process ends or holds another one; False if somebody deletes it.

    Without effect where locks do not work.
    """
    release()
    ends = time.monotonic() + PATIENCE
    while not (taken := _took(path)) and time.monotonic() < ends:
        time.sleep(POLL)
    return taken


def _took(path: str | Path) -> bool:
    try:
        lock = _locked(path, fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return True
    _held.append(lock)
    return True


def release() -> None:
    """Hold no model any more."""
    while _held:
        _unlock(_held.pop())


def held(path: str | Path) -> contextlib.AbstractContextManager[bool]:
    """Keep a model, beside the one of `hold`, from being deleted meanwhile; gives False if somebody does already."""
    return _while_locked(path, fcntl.LOCK_SH)


def alone_with(path: str | Path) -> contextlib.AbstractContextManager[bool]:
    """Keep others from using a model; gives False if one does."""
    return _while_locked(path, fcntl.LOCK_EX)


@contextlib.contextmanager
def _while_locked(path: str | Path, kind: int) -> Iterator[bool]:
    try:
        lock = _locked(path, kind)
    except BlockingIOError:
        yield False
        return
    except OSError:
        # A file system without locks, or a folder that may not be opened, tells nothing about users.
        yield True
        return
    try:
        yield True
    finally:
        _unlock(lock)


def _locked(path: str | Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _unlock(descriptor: int) -> None:
    # Explicitly: a child that was forked meanwhile has the descriptor too, and closing ours would not end the lock.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def holders(path: str | Path) -> list[int]:
    """Return the process ids that hold a lock on a path, as far as the kernel's list names them."""
    status = os.stat(path)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found: list[int] = []
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            # A process that waits for a lock has an arrow in the second column.
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
                found.append(int(fields[4]))
    return sorted(set(found) - {os.getpid()})
