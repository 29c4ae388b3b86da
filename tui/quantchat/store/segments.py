"""Files of searchable text. A segment is written once; its texts lie side by side, and none can be told from another.

What a search meets is checked: a segment that was damaged, cut or removed costs a slower search, never a wrong one.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from quantchat.store.atomic import private_dir, temporary_name

SUFFIX = ".text"
CHUNK = 1024**2
"""Bytes that are read and searched at a time, for about a millisecond, in which other threads wait."""
END = b"\0"
"""Ends every text, so that no match reaches from one into the next."""


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a text lies: in which file, from which byte, how many bytes, and their CRC-32."""

    segment: str
    start: int
    length: int
    check: int


Spot = tuple[Place, str]
"""A place and the id of the session whose text lies there."""


class SegmentWriter:
    """Writes one segment, which has its name only once it is whole.

    Raises:
        OSError, StorageError: from all methods, if the disk refuses; nothing is left then.
    """

    def __init__(self, folder: Path) -> None:
        private_dir(folder)
        self.size = 0
        self._path = folder / f"{os.urandom(8).hex()}{SUFFIX}"
        self._temporary = folder / temporary_name(self._path.name)
        self._file = open(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it if anything failed."""
        try:
            self._file.close()
            if kind is None and self.size:
                self._temporary.replace(self._path)
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def add(self, text: bytes) -> Place:
        """Append a text that ends with `END`."""
        place = Place(self._path.name, self.size, len(text), zlib.crc32(text))
        self._file.write(text)
        self.size += len(text)
        return place


class SegmentReader:
    """One open segment.

    Raises:
        OSError: if it cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def state(self) -> tuple[int, int, int]:
        """Return what changes when somebody writes to the file."""
        status = os.fstat(self._file.fileno())
        return status.st_ino, status.st_size, status.st_mtime_ns

    def text(self, place: Place) -> bytes | None:
        """Return what lies at a place; None if it is damaged."""
        text = os.pread(self._file.fileno(), place.length, place.start)
        return text if zlib.crc32(text) == place.check else None

    def damaged(self, spots: Sequence[Spot]) -> list[str]:
        """Return the sessions whose texts are not what was written."""
        return [
            spot[1]
            for batch, view in self._batches(spots)
            for spot in batch
            if zlib.crc32(_slice(view, batch, spot)) != spot[0].check
        ]

    def holding(self, needle: bytes, spots: Sequence[Spot], stop: Callable[[], bool]) -> Iterator[str]:
        """Yield the sessions whose texts hold some bytes; `spots` in the order in which they lie there."""
        for batch, view in self._batches(spots):
            if stop():
                return
            yield from _holding(needle, batch, view)

    def _batches(self, spots: Sequence[Spot]) -> Iterator[tuple[Sequence[Spot], bytearray]]:
        """Read neighbours together, into one buffer; what the file no longer has is read as zeros."""
        buffer = bytearray(CHUNK)
        for batch in _neighbours(spots):
            start, end = _start(batch), batch[-1][0].start + batch[-1][0].length
            if end - start != len(buffer):
                buffer = bytearray(end - start) if end - start > CHUNK else buffer
            with memoryview(buffer) as view:
                read = os.preadv(self._file.fileno(), [view[: end - start]], start)
                view[read:] = bytes(len(buffer) - read)
            yield batch, buffer


def _neighbours(spots: Sequence[Spot]) -> Iterator[Sequence[Spot]]:
    """Part spots so that each part lies within a chunk, or is one spot."""
    begin = 0
    for number, (place, _) in enumerate(spots):
        if number > begin and place.start + place.length - spots[begin][0].start > CHUNK:
            yield spots[begin:number]
            begin = number
    if spots:
        yield spots[begin:]


def _holding(needle: bytes, batch: Sequence[Spot], data: bytearray) -> Iterator[str]:
    base = _start(batch)
    starts = [place.start - base for place, _ in batch]
    at = data.find(needle)
    while at >= 0:
        number = bisect_right(starts, at) - 1
        place, session_id = batch[number]
        # Between two texts may lie one that is out of date.
        if at < starts[number] + place.length:
            yield session_id
        if number + 1 == len(batch):
            return
        at = data.find(needle, starts[number + 1])


def _slice(data: bytearray, batch: Sequence[Spot], spot: Spot) -> memoryview:
    start = spot[0].start - _start(batch)
    return memoryview(data)[start : start + spot[0].length]


def _start(batch: Sequence[Spot]) -> int:
    return batch[0][0].start


def overwrite(folder: Path, places: Sequence[Place]) -> None:
    """Put zeros in place of texts that are no longer in a session; who knows them still finds them damaged."""
    for place in places:
        # A segment that is gone holds them no more, and one of another user is not ours to change.
        with contextlib.suppress(OSError), open(folder / place.segment, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes(place.length), place.start)
