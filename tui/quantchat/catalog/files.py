"""Reading a folder that others wrote: bounded, regular files only, and every fault becomes a `Problem`."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

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
    def folder(self) -> bool:
        """Whether it is a folder, or leads to one."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.status.st_size if self.status is not None else 0

    @property
    def modified(self) -> float:
        """In seconds since the epoch."""
        return self.status.st_mtime if self.status is not None else 0.0


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
        self._start = os.path.join(path, "")
        self.problems: list[Problem] = []
        self.subfolders: set[str] = set()
        self._parsed: dict[str, JsonObject | None] = {}
        self.entries: Mapping[str, Entry] = self._list()
        self.files = {name: entry.status for name, entry in self.entries.items() if entry.status and entry.regular}
        self._by_extension: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            self._by_extension[name.rpartition(".")[2]].append(name)

    def _list(self) -> dict[str, Entry]:
        try:
            # By the folder's handle: the system looks up each name there, not the whole path each time.
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                entries = {name: _entry(name, handle) for name in os.listdir(handle) if not name.endswith(MEDIA)}
                folders = (name for name, entry in entries.items() if entry.folder)
                self.subfolders = {name for name in folders if not _is_link(name, handle)}
            finally:
                os.close(handle)
        except OSError as error:
            raise defect("folder-unreadable", why=os_reason(error)) from error
        return entries

    def join(self, name: str) -> str:
        """Return the path of what is called so in the folder."""
        return self._start + name

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
        with RegularFile(self.join(name)) as file:
            if file.size > JSON_LIMIT:
                raise defect("file-too-large", file=name, size=file.size)
            text = file.read(file.size)
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
            with RegularFile(self.join(name)) as file:
                return file.read(len(LFS_MAGIC)) == LFS_MAGIC
        except Defect:
            return False


def _entry(name: str, folder: int | None = None) -> Entry:
    try:
        return Entry(os.stat(name, dir_fd=folder))
    except OSError as error:
        return Entry(None, error.errno or errno.EIO)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return True


def _add_sizes(path: str, sizes: dict[tuple[int, int], int], depth: int) -> None:
    try:
        with os.scandir(path) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    if depth > 1:
                        _add_sizes(item.path, sizes, depth - 1)
                elif (status := _entry(item.path).status) and stat.S_ISREG(status.st_mode):
                    sizes[status.st_dev, status.st_ino] = status.st_size
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


class RegularFile:
    """A regular file, open for reading in its `with` block; opening it never waits at a pipe.

    Not `open`, whose layers take longer than the system does; a scan opens thousands of small files.

    Attributes:
        name: Without its folder.
        size: Bytes, as it was opened.

    Raises:
        Defect: It is no regular file, or the system refuses to open or read it.
    """

    __slots__ = ("_descriptor", "_path", "name", "size")

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = os.path.basename(path)
        self.size = 0

    def __enter__(self) -> RegularFile:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._refused(os_reason(error)) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise self._refused("it is not a regular file")
        self.size = status.st_size
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._descriptor)

    def read(self, count: int, start: int = 0) -> bytes:
        """Read bytes from a position on; fewer only at the end of the file. As much memory is taken as is asked for."""
        try:
            data = os.pread(self._descriptor, count, start)
            while data and len(data) < count and start + len(data) < self.size:
                if not (more := os.pread(self._descriptor, count - len(data), start + len(data))):
                    break
                data += more
        except OSError as error:
            raise self._refused(os_reason(error)) from error
        return data

    def _refused(self, why: str) -> Defect:
        return defect("file-unreadable", file=self.name, why=why)
