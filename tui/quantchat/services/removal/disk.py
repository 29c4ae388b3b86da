"""What lies on the disk: how many bytes it gives back, and what keeps it from being deleted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

Found = tuple[Path, os.stat_result]
MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(r"\\([0-7]{3})")


def files_below(folder: Path) -> Iterator[Found]:
    """Yield everything in a folder that is no folder itself; links are not followed.

    Raises:
        OSError: A folder cannot be listed.
    """
    for above, folders, names in os.walk(folder, onerror=_raise):
        for name in (*names, *folders):
            path = Path(above, name)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield path, status


def folders_below(folder: Path) -> Iterator[Path]:
    """Yield a folder and all folders in it; links are not followed."""
    yield from (Path(above) for above, _, _ in os.walk(folder, onerror=_raise))


def _raise(error: OSError) -> None:
    raise error


def sizes(files: Iterable[Found]) -> tuple[int, int]:
    """Return the bytes that go and those that stay, because a hard link elsewhere holds them."""
    links: dict[tuple[int, int], int] = {}
    known: dict[tuple[int, int], os.stat_result] = {}
    for _, status in files:
        identity = (status.st_dev, status.st_ino)
        links[identity] = links.get(identity, 0) + 1
        known[identity] = status
    freed = sum(taken(status) for identity, status in known.items() if links[identity] >= status.st_nlink)
    return freed, sum(taken(status) for status in known.values()) - freed


def taken(status: os.stat_result) -> int:
    """Return the bytes of a file, 0 for links; of one with holes, such as a half download, those on the disk."""
    return min(status.st_size, status.st_blocks * 512) if stat.S_ISREG(status.st_mode) else 0


def mounted_in(paths: Iterable[Path]) -> str:
    """Return where something is mounted at or below one of these; empty if nothing is."""
    mounts = _mounts()
    tops = map(os.path.realpath, paths)
    return next((place for top in tops for place in mounts if place == top or place.startswith(f"{top}/")), "")


def _mounts() -> list[str]:
    # Not `os.path.ismount`: it does not see what is bound to another place of the same disk.
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            fields = (line.split(" ") for line in file)
            return [_OCTAL.sub(lambda code: chr(int(code[1], 8)), parts[4]) for parts in fields if len(parts) > 4]
    except OSError:
        return []


def locked_folder(paths: Iterable[Path]) -> Path | None:
    """Return a folder that keeps one of these, a file or a folder with all that is in it, from being deleted."""
    for path in paths:
        inner = folders_below(path) if path.is_dir() and not path.is_symlink() else ()
        for entry in (path, *(child for folder in inner for child in folder.iterdir())):
            if not _may_delete(entry):
                return entry.parent
    return None


def _may_delete(path: Path) -> bool:
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        return False
    above = path.parent.stat()
    return not above.st_mode & stat.S_ISVTX or os.geteuid() in (0, above.st_uid, path.lstat().st_uid)
