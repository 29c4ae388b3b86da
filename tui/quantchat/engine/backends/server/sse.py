"""Server-sent events, as far as chat servers use them, with a bound on what is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

LONGEST_EVENT = 8 << 20
"""Bytes; an event is a few words, or an error with a long story."""


class EventReader:
    """Takes bytes as they come and gives the data of whole events.

    Lines may end in CR LF or LF, comments (which keep connections open) are dropped. An `error` line, which older
    llama.cpp sends, counts as data.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Take the next bytes.

        Raises:
            ValueError: if an event is far too large.
        """
        searched = len(self._rest)
        self._rest += piece
        start = 0
        while (end := self._rest.find(b"\n", max(start, searched))) >= 0:
            line = bytes(self._rest[start:end])
            start = end + 1
            yield from self._line(line.removesuffix(b"\r"))
        del self._rest[:start]
        if self._size + len(self._rest) > LONGEST_EVENT:
            raise ValueError(f"one event of more than {LONGEST_EVENT:,} bytes")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if not line and self._data:
            whole, self._size = b"\n".join(self._data), 0
            self._data.clear()
            yield whole
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give the data of each event of a stream; what the stream ends in the middle of is dropped.

    Raises:
        ValueError: if an event is far too large.
    """
    reader = EventReader()
    async for piece in pieces:
        for data in reader.feed(piece):
            yield data
