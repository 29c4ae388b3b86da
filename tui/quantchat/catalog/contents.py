"""The files of a model, with their sizes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.catalog.gguf_model import PART

MOST_FILES = 2000
DEPTH = 3


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a model.

    Attributes:
        name: Path below the model's folder.
        size: Bytes, links followed.
        note: What is unusual about it, such as a link to nowhere.
    """

    name: str
    size: int
    note: str = ""


def list_files(path: Path) -> tuple[FileEntry, ...]:
    """List the files of a model folder or a GGUF model; at most 2,000, three levels deep, links to folders not."""
    if path.is_file():
        return tuple(_entry(part.name, part) for part in parts_of(path))
    found: list[FileEntry] = []
    for entry in _walk(path, "", DEPTH):
        found.append(entry)
        if len(found) == MOST_FILES:
            break
    return tuple(found)


def parts_of(path: Path) -> list[Path]:
    """Return the files of a GGUF model that are there: of a split one all parts."""
    part = PART.match(path.name)
    if part is None:
        return [path]
    alike = re.compile(rf"^{re.escape(part['stem'])}-\d{{5}}-of-{part['total']}\.gguf$")
    return sorted(file for file in path.parent.iterdir() if alike.match(file.name))


def _walk(folder: Path, above: str, depth: int) -> Iterator[FileEntry]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in listed:
        if not entry.is_dir(follow_symlinks=False):
            yield _entry(above + entry.name, Path(entry.path))
        elif depth > 1:
            yield from _walk(Path(entry.path), f"{above}{entry.name}/", depth - 1)


def _entry(name: str, path: Path) -> FileEntry:
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    try:
        status = path.stat()
    except OSError:
        return FileEntry(shown, 0, "a link to nowhere" if path.is_symlink() else "cannot be read")
    if stat.S_ISREG(status.st_mode):
        return FileEntry(shown, status.st_size)
    return FileEntry(shown, 0, "a link to a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
