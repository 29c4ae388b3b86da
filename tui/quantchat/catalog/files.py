"""Reading a folder that others wrote: bounded, regular files only, and every fault becomes a `Problem`."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from quantchat.catalog.problems import Defect, defect, os_reason
from quantchat.domain.models import Problem

JSON_LIMIT = 64 * 1024**2
LFS_MAGIC = b"version https://git-lfs.github.com/spec/"
LFS_LIMIT = 1024
SUBFOLDER_DEPTH = 3
MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp3", ".mp4", ".wav")
"""Samples beside a model. They tell nothing about it, and to ask for the size of each costs more than all the rest."""
LINK_FAULTS = {errno.ELOOP: "link-loop", errno.ENOENT: "link-broken"}

JsonObject = dict[str, object]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A name in a folder, links followed.

    Attributes:
        status: None where it cannot be looked at, and then `fault` is the error number of the system.
    """

    status: os.stat_result | None
    fault: int = 0

    @property
    def regular(self) -> bool:
        """False for folders, pipes and links to nowhere."""
        return self.status is not None and stat.S_ISREG(self.status.st_mode)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.status.st_size if self.status is not None else 0

    @property
    def modified(self) -> float:
        """In seconds since the epoch."""
        return self.status.st_mtime if self.status is not None else 0.0

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return (self.status.st_dev, self.status.st_ino) if self.status is not None else (0, 0)


class Folder:
    """One folder, listed once without `MEDIA`; faults that its readers find are collected in `problems`.

    Attributes:
        files: The regular files among the entries.
        subfolders: Folders that are no links.

    Raises:
        Defect: The folder cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.subfolders: set[str] = set()
        self._parsed: dict[str, JsonObject | None] = {}
        self.entries: Mapping[str, Entry] = self._list()
        self.files = {name: entry.status for name, entry in self.entries.items() if entry.status and entry.regular}
        self._by_extension: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_extension[name.rpartition(".")[2]].append(name)

    def _list(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        try:
            # By the folder's handle: the system looks up each name there, not the whole path each time.
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with os.scandir(handle) as found:
                    for item in found:
                        is_folder = item.is_dir(follow_symlinks=False)
                        if is_folder:
                            self.subfolders.add(item.name)
                        if is_folder or not item.name.endswith(MEDIA):
                            entries[item.name] = _entry(item)
            finally:
                os.close(handle)
        except OSError as error:
            raise defect("folder-unreadable", why=os_reason(error)) from error
        return entries

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def names(self, *suffixes: str) -> list[str]:
        """Return the regular files that end so, sorted."""
        extensions = dict.fromkeys(suffix.rpartition(".")[2] for suffix in suffixes)
        named = (name for extension in extensions for name in self._by_extension.get(extension, ()))
        return sorted(name for name in named if name.endswith(suffixes))

    def modified(self) -> float:
        """Return the newest time of the files, in seconds since the epoch."""
        return max((status.st_mtime for status in self.files.values()), default=0.0)

    def disk_bytes(self) -> int:
        """Sum the sizes of the files in bytes, links followed, each file once, three levels deep."""
        sizes = {(status.st_dev, status.st_ino): status.st_size for status in self.files.values()}
        for subfolder in self.subfolders:
            _add_sizes(os.path.join(self.path, subfolder), sizes, SUBFOLDER_DEPTH)
        return sum(sizes.values())

    def json(self, name: str) -> JsonObject | None:
        """Return the object in a JSON file; None if it is absent or bad, and then `problems` says so."""
        if name not in self._parsed:
            self._parsed[name] = None
            try:
                if (text := self.text(name)) is not None:
                    self._parsed[name] = parse_json(text, name)
            except Defect as fault:
                self.problems.append(fault.problem)
        return self._parsed[name]

    def text(self, name: str) -> bytes | None:
        """Return a text of at most 64 MiB; None if it is absent.

        Raises:
            Defect: It is unreadable, too large or a Git LFS pointer.
        """
        if name not in self.entries:
            return None
        self._refuse_link(name)
        text = _read_regular(self.path / name)
        if text.startswith(LFS_MAGIC):
            raise defect("lfs-pointer", file=name)
        return text

    def _refuse_link(self, name: str) -> None:
        if (code := LINK_FAULTS.get(self.entries[name].fault)) is not None:
            raise defect(code, file=name)

    def is_lfs_pointer(self, name: str) -> bool:
        """Whether a file is what Git leaves in place of a large file that was not fetched."""
        entry = self.entries[name]
        if not entry.regular or entry.size > LFS_LIMIT:
            return False
        try:
            return (self.path / name).read_bytes().startswith(LFS_MAGIC)
        except OSError:
            return False


def _entry(item: os.DirEntry[str]) -> Entry:
    try:
        return Entry(item.stat())
    except OSError as error:
        return Entry(None, error.errno or errno.EIO)


def _add_sizes(path: str, sizes: dict[tuple[int, int], int], depth: int) -> None:
    try:
        with os.scandir(path) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    if depth > 1:
                        _add_sizes(item.path, sizes, depth - 1)
                elif (entry := _entry(item)).regular:
                    sizes[entry.identity] = entry.size
    except OSError:
        return


def parse_json(text: bytes, name: str) -> JsonObject:
    """Parse the JSON object in a file.

    Configs written by Python may hold `Infinity` and `NaN`, which the fast parser refuses and the standard one takes.

    Raises:
        Defect: It is not JSON or not an object.
    """
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise defect("not-json", file=name, why=error) from error
    if not isinstance(value, dict):
        raise defect("not-an-object", file=name)
    return value


def _parsed(text: bytes) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(text)


def _read_regular(path: Path) -> bytes:
    with open_regular(path) as (file, size):
        if size > JSON_LIMIT:
            raise defect("file-too-large", file=path.name, size=size)
        # Not `JSON_LIMIT`: as much memory is taken as is asked for.
        return file.read(size)


@contextmanager
def open_regular(path: Path, *, buffered: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading and give its size in bytes; never waits at a pipe.

    Raises:
        Defect: It is no regular file, or the system refuses to open or read it.
    """
    try:
        with open(path, "rb", -1 if buffered else 0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise defect("file-unreadable", file=path.name, why="it is not a regular file")
            yield file, status.st_size
    except OSError as error:
        raise defect("file-unreadable", file=path.name, why=os_reason(error)) from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
