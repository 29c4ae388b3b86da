"""What earlier scans read, kept for as long as the files that it was read from stay as they were.

The file may be deleted at any time; one that is damaged, or was written by other code, is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import time
from pathlib import Path

import msgspec

from quantchat import __version__
from quantchat.domain.models import ModelInfo

MOST_ENTRIES = 50_000
SETTLED_NS = 100_000_000
"""What changed within the last tenth of a second may change again without a new time: clocks of file systems tick."""
COARSE_NS = 2_100_000_000
"""The same where times are whole seconds, or as on FAT every other one."""
_DIGEST = 16
_ABSENT = (-1, -1)

Stamp = tuple[bytes, int, int]
"""A name relative to the folder, its size in bytes (0 of folders), its time in nanoseconds; -1 of what is absent."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A folder in which to look for a model.

    Attributes:
        name, revision: What its surroundings call it; empty where the folder's own name counts.
        superseded: An earlier state of another place, shown only as a copy of that.
    """

    path: bytes
    name: bytes = b""
    revision: bytes = b""
    superseded: bool = False


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What a folder holds: models, or places to go on to.

    Attributes:
        inode, modified: Of the folder itself; the time in nanoseconds.
        stamps: The other files and folders that decide what was read.
        weights: For each model, a digest that is equal for the same files on disk; empty if it has none.
    """

    path: bytes
    inode: int
    modified: int
    stamps: tuple[Stamp, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    weights: tuple[bytes, ...] = ()
    places: tuple[Place, ...] = ()

    def holds(self, status: os.stat_result) -> bool:
        """Whether nothing has changed; `status` is the folder's own, as it is now."""
        if (status.st_ino, status.st_mtime_ns) != (self.inode, self.modified):
            return False
        start = self.path + b"/"
        return all(measure(start + name) == (size, modified) for name, size, modified in self.stamps)

    @property
    def in_motion(self) -> bool:
        """Whether a model is still being copied, which a later look may tell without any change on the disk."""
        return any(problem.code == "being-copied" for model in self.models for problem in model.problems)

    def settled(self, now: int) -> bool:
        """Whether nothing of it changed just now; `now` in nanoseconds."""
        return all(abs(now - time) > _tick(time) for time in (self.modified, *(time for _, _, time in self.stamps)))


def _tick(time: int) -> int:
    return SETTLED_NS if time % 1_000_000_000 else COARSE_NS


def measure(path: bytes) -> tuple[int, int]:
    """Return size and time of what lies there, links followed."""
    try:
        return stamp(os.stat(path))
    except (OSError, ValueError):
        return _ABSENT


def stamp(status: os.stat_result | None) -> tuple[int, int]:
    """Return size and time of what has this status; None is absent."""
    if status is None:
        return _ABSENT
    return (0 if stat.S_ISDIR(status.st_mode) else status.st_size), status.st_mtime_ns


class Index:
    """Entries by folder, of which those that a scan came past are kept.

    Args:
        file: Where they are stored; None keeps them in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._code = code_digest() if file is not None else b""
        self._entries: dict[bytes, Entry | msgspec.Raw] = _load(file, self._code) if file is not None else {}
        self._met: set[bytes] = set()
        self._changed = False

    @property
    def outdated(self) -> bool:
        """Whether other packages were installed since it was opened, which may run what could not run before."""
        return self._file is not None and code_digest() != self._code

    def get(self, path: bytes, status: os.stat_result) -> Entry | None:
        """Return what is known of a folder if it still holds."""
        entry = self._entries.get(path)
        if isinstance(entry, msgspec.Raw):
            entry = _decode(entry, path)
            if entry is not None:
                self._entries[path] = entry
        if entry is None or not entry.holds(status):
            return None
        self._met.add(path)
        return entry

    def put(self, entry: Entry) -> None:
        """Keep what was read, unless it is so fresh that a change could go unnoticed."""
        self._met.add(entry.path)
        if entry.settled(time.time_ns()) and not entry.in_motion:
            self._entries[entry.path] = entry
            self._changed = True
        elif self._entries.pop(entry.path, None) is not None:
            self._changed = True

    def finish(self, roots: tuple[bytes, ...]) -> None:
        """End a whole scan of these roots: forget what is no longer below them, and store the rest."""
        starts = tuple(root.rstrip(b"/") + b"/" for root in roots)
        gone = [path for path in self._entries if path not in self._met and (path + b"/").startswith(starts)]
        for path in gone:
            del self._entries[path]
        self._met.clear()
        if (self._changed or gone) and self._file is not None:
            _store(self._file, self._code, self._entries)
        self._changed = False


def open_index() -> Index:
    """Return the index of this user."""
    # Not at the top: the readers have no use for it, and each of them would import it.
    from quantchat import paths

    return Index(paths.cache_dir() / "models.index")


def _decode(raw: msgspec.Raw, path: bytes) -> Entry | None:
    try:
        entry = _ENTRIES.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return None
    return entry if entry.path == path else None


def _load(file: Path, wanted: bytes) -> dict[bytes, Entry | msgspec.Raw]:
    try:
        data = file.read_bytes()
    except OSError:
        return {}
    code, digest, body = data[:_DIGEST], data[_DIGEST : 2 * _DIGEST], data[2 * _DIGEST :]
    if code != wanted or digest != _digest(body):
        return {}
    try:
        return dict(_BODY.decode(body))
    except (msgspec.MsgspecError, ValueError):
        return {}


def _store(file: Path, code: bytes, entries: dict[bytes, Entry | msgspec.Raw]) -> None:
    kept = dict(list(entries.items())[-MOST_ENTRIES:])
    body = msgspec.msgpack.encode(kept)
    # What is lost costs one slower scan, so a disk that refuses is nobody's concern, and nothing waits for it.
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                target.write(code + _digest(body) + body)
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def code_digest() -> bytes:
    """Return a digest of what an entry depends on beside the files: the code that reads, and what is installed."""
    package = Path(__file__).resolve().parent
    found = hashlib.blake2b(__version__.encode(), digest_size=_DIGEST)
    for source in (*sorted(package.glob("*.py")), package.parent / "domain" / "models.py"):
        with contextlib.suppress(OSError):
            found.update(source.read_bytes())
    for folder in sys.path:
        if folder.endswith("-packages"):
            found.update(repr((folder, measure(os.fsencode(folder)))).encode())
    return found.digest()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


_ENTRIES = msgspec.msgpack.Decoder(Entry)
_BODY = msgspec.msgpack.Decoder(dict[bytes, msgspec.Raw])
