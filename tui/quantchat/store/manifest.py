"""What is kept of the index of sessions between two starts; see `store.index`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import unicodedata
from pathlib import Path

import msgspec

from quantchat.domain.chat import SessionSummary
from quantchat.errors import StorageError
from quantchat.store.atomic import private_dir, temporary_name
from quantchat.store.segments import Place

SETTLED_NS = 100_000_000
"""What changed within the last tenth of a second may change again without a new time: clocks of file systems tick."""
COARSE_NS = 2_100_000_000
"""The same where times are whole seconds, or as on FAT every other one."""
_DIGEST = 16

Stamp = tuple[int, ...]
"""Inode, size in bytes, and time in nanoseconds of a session's file."""

UNSETTLED: Stamp = (0, 0, 0)
"""Stands for a file that changed just now, so that it is read again."""


# Without a part in collections: ten thousand of them would be walked while a key waits to be echoed.
class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session as its file was when it had this stamp; `place` tells where its text lies, if it was put there."""

    stamp: Stamp
    summary: SessionSummary
    place: Place | None = None


Entries = dict[str, Entry]


def stamp(status: os.stat_result) -> Stamp:
    """Return what changes with the contents of a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def settled(found: Stamp) -> Stamp:
    """Return the stamp of a file that is being read now if it will tell the next change."""
    changed = found[2]
    fresh = abs(time.time_ns() - changed) < (SETTLED_NS if changed % 1_000_000_000 else COARSE_NS)
    return UNSETTLED if fresh else found


class Manifest:
    """The file that names all entries; it may be deleted, damaged or replaced by another process at any time."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file = file
        self._head = _origin(root)
        self._seen: Stamp | None = None

    @property
    def replaced(self) -> bool:
        """Whether it is not what was last read or written here."""
        try:
            return stamp(os.stat(self._file)) != self._seen
        except OSError:
            return False

    def read(self) -> Entries:
        """Return the entries; none if the file is damaged, of other code, or of other sessions."""
        try:
            with open(self._file, "rb", buffering=0) as file:
                self._seen = stamp(os.fstat(file.fileno()))
                data = file.read()
        except OSError:
            return {}
        head, digest, body = data[:_DIGEST], data[_DIGEST : 2 * _DIGEST], data[2 * _DIGEST :]
        if head != self._head or digest != _digest(body):
            return {}
        try:
            # One by one, so that other threads come in between.
            return {name: _ENTRY.decode(raw) for name, raw in _BODY.decode(body).items()}
        except (msgspec.MsgspecError, ValueError):
            return {}

    def write(self, entries: Entries) -> bool:
        """Replace the file; false if the disk refuses, which costs the next start some reading."""
        body = msgspec.msgpack.encode(entries)
        temporary = self._file.with_name(temporary_name(self._file.name))
        try:
            private_dir(self._file.parent)
            try:
                # Not synced: after a power cut the digest tells.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                    target.write(self._head + _digest(body) + body)
                    target.flush()
                    seen = stamp(os.fstat(target.fileno()))
                temporary.replace(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
        except (OSError, StorageError):
            return False
        self._seen = seen
        return True


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _origin(root: Path) -> bytes:
    """Return a digest of what entries depend on beside the files: their folder, and the code that reads them."""
    found = hashlib.blake2b(os.fsencode(root.absolute()) + unicodedata.unidata_version.encode(), digest_size=_DIGEST)
    package = Path(__file__).resolve().parents[1]
    for name in ("domain/chat", "domain/found", "domain/thinking", "store/schema", "store/manifest", "store/segments"):
        with contextlib.suppress(OSError):
            found.update((package / f"{name}.py").read_bytes())
    return found.digest()


_BODY = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_ENTRY = msgspec.msgpack.Decoder(Entry)
