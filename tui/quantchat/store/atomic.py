"""Files that are either the old one or the new one, never half of each."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import time
from pathlib import Path

from quantchat.errors import StorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NO_FILE = {errno.ENOENT: "There is no such file", errno.EISDIR: "That is a folder, not a file"}
MOST_ATTEMPTS = 5
ABANDONED_SECONDS = 24 * 3600
"""A temporary file older than this has no writer any more, whoever its process id belongs to now."""

_TEMPORARY = re.compile(r"^\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]+\.tmp$")


def translate_os_error(error: OSError, path: Path, *, reading: bool = False) -> StorageError:
    """Explain what the disk said about `path`, while writing unless told otherwise."""
    said = error.strerror or str(error)
    if error.errno in FULL:
        return StorageError(
            "The disk is full",
            f"{path} could not be written ({said})",
            f"Free some space where {path.parent} lies and try again",
            code="disk-full",
        )
    if error.errno in FORBIDDEN:
        doing, needed = ("read", "readable") if reading else ("write", "writable")
        return StorageError(
            f"No permission to {doing}",
            f"{path}: {said}",
            f"Make {path if reading else path.parent} {needed} for your user, or point QUANTCHAT_HOME somewhere else",
            code="no-permission",
        )
    if reading and (title := NO_FILE.get(error.errno or 0)):
        return StorageError(title, str(path), "Check its name")
    return StorageError("The disk refused", f"{path}: {said}", "Check the disk and try again")


def private_dir(path: Path) -> Path:
    """Make a folder that only its owner can enter (0700), with any missing parents, and return it.

    Raises:
        StorageError: if it cannot be made.
    """
    try:
        _make_folders(path)
        mode = path.stat().st_mode
        # A sticky folder, such as /tmp, is everybody's.
        if mode & 0o077 and not mode & stat.S_ISVTX:
            # A folder of someone else's that we may write is still good enough.
            with contextlib.suppress(PermissionError):
                path.chmod(0o700)
    except OSError as error:
        raise translate_os_error(error, path) from error
    return path


def _make_folders(path: Path) -> None:
    """Make a folder and its parents; one that another process takes away as empty meanwhile is made again."""
    for attempt in range(MOST_ATTEMPTS):
        try:
            for folder in reversed([path, *path.parents]):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:
            if attempt == MOST_ATTEMPTS - 1:
                raise
        else:
            return


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file by new contents that are on the disk before their name is; mode 0600.

    A symbolic link is followed, so that a linked `config.toml` stays linked.

    Raises:
        StorageError: `disk-full`, `no-permission` or `storage`; the old file is then untouched.
    """
    target = Path(os.path.realpath(path))
    # Not private_dir for a folder that is there: a linked file may lie among the user's other files.
    folder = target.parent if os.path.isdir(target.parent) else private_dir(target.parent)
    temporary = folder / temporary_name(target.name)
    try:
        try:
            _put(temporary, target, data)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(folder)
    except OSError as error:
        raise translate_os_error(error, target) from error


def _put(temporary: Path, target: Path, data: bytes) -> None:
    _write_synced(temporary, data)
    try:
        temporary.replace(target)
    except FileNotFoundError:
        # A program whose clock was set a day ahead has taken it for abandoned.
        _write_synced(temporary, data)
        temporary.replace(target)


def temporary_name(name: str) -> str:
    """Name a temporary file after its writer, so that a later start can tell whether it was abandoned."""
    return f".{name}.{host_label()}.{os.getpid()}.{os.urandom(4).hex()}.tmp"


def host_label() -> str:
    """This machine's name in letters that fit into a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"


def process_lives(pid: int) -> bool:
    """Whether a process of this machine exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sweep_temporaries(folder: Path) -> list[Path]:
    """Remove temporary files whose writer is gone; return those removed."""
    removed = []
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if _abandoned(path):
                path.unlink()
                removed.append(path)
    return removed


def sync_folder(folder: Path) -> None:
    """Bring a rename to the disk. Some network file systems cannot, and say so with EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def move_aside(path: Path, folder: Path) -> Path:
    """Move a file into a private folder under a name that is free there; return the new place.

    Raises:
        OSError: if it cannot be moved; it is then where it was.
    """
    private_dir(folder)
    target = folder / path.name
    while not _moved(path, target):
        target = folder / f"{path.stem}.{os.urandom(4).hex()}{path.suffix}"
    return target


def _moved(path: Path, target: Path) -> bool:
    """Move a file to a name unless that is taken; a plain rename would replace what another process put there."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:
        # A file system without hard links, or another one.
        if os.path.lexists(target):
            return False
        path.rename(target)
        return True
    # Another process that moved it at the same time may have been quicker.
    path.unlink(missing_ok=True)
    return True


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _abandoned(path: Path) -> bool:
    if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
        return True
    writer = _TEMPORARY.match(path.name)
    return writer is not None and writer["host"] == host_label() and not process_lives(int(writer["pid"]))
