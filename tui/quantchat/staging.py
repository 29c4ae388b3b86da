"""Folders and files that appear complete or not at all.

Work happens in a hidden sibling, `.<name>.partial-<pid>`, which is renamed when it is done. What a killed process left
there is recognised by its pid and removed by the next one that makes the same thing.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantchat.errors import StorageError

TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What a rename says of a name that another program was quicker to take."""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill, and rename it to `target` if the block ends well.

    Raises:
        StorageError: if `target` exists already, or the disk refuses.
    """
    if os.path.lexists(target):
        raise _exists(target)
    with scratch(target) as partial:
        yield partial
        _commit(partial, target)


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` for the work on it, and remove it in the end.

    Raises:
        StorageError: if the disk refuses, also within the block.
    """
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        remove_stale(target)
        partial.mkdir(mode=0o700)
        yield partial
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"Cannot write {target}", reason, "Free some space or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_stale(target: Path) -> None:
    """Remove what processes that are gone have left half made of `target`."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.partial-*"):
        if not _alive(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: str) -> bool:
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _commit(partial: Path, target: Path) -> None:
    """Put the bytes on the disk before the name, so that a power cut cannot leave a hollow folder."""
    for path in partial.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            _sync(path)
    _sync(partial)
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno in TAKEN:
            raise _exists(target) from error
        raise
    _sync(target.parent)


def _exists(target: Path) -> StorageError:
    return StorageError(f"{target} exists already", remedy="Choose another name, or move it away first")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
