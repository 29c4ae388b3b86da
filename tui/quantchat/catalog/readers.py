"""Reading many folders in processes of their own, at once and without holding up this one."""

from __future__ import annotations

import contextlib
import os
import selectors
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec

from quantchat.catalog.candidates import Candidate, unreadable
from quantchat.catalog.index import Entry

MOST_PROCESSES = 2
WORTH_ANOTHER = 32
"""Fewer folders than this per process are read sooner by one: starting it takes longer."""
MOST_FRUITLESS = 8
"""So many processes in a row that read nothing at all: it is not the folders that end them."""
LOOK_SECONDS = 0.05
_COMMAND = (sys.executable, "-P", "-m", "quantchat.catalog")
_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 16
_DECODER = msgspec.msgpack.Decoder(Entry)


class Readers:
    """Reads folders in processes, which end with the `with` block."""

    def __init__(self) -> None:
        self._idle: list[_Reader] = []
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def expect(self, count: int) -> None:
        """Start processes for so many folders, which import what they need while more folders are looked for."""
        if count == WORTH_ANOTHER * (len(self._idle) + 1) and len(self._idle) < _most():
            with contextlib.suppress(OSError):
                self._idle.append(self._running.enter_context(_Reader()))

    def __call__(self, candidates: Sequence[Candidate], cancelled: Callable[[], bool]) -> Iterator[Entry]:
        """Yield an entry for each folder as it is read; one that ends its reader is described by that.

        Blocks, so not for the event loop. Once `cancelled` says so it ends, within a twentieth of a second.
        """
        left = {candidate.place.path: candidate for candidate in candidates}
        try:
            for entry in self._read(candidates, cancelled):
                del left[entry.path]
                yield entry
        except OSError:
            # No process could be started: too many are there, or no memory is left.
            yield from map(_unread, left.values())

    def _read(self, candidates: Sequence[Candidate], cancelled: Callable[[], bool]) -> Iterator[Entry]:
        count = min(_most(), -(-len(candidates) // WORTH_ANOTHER))
        fruitless = 0
        with selectors.DefaultSelector() as selector:
            for number in range(count):
                self._start(candidates[number::count], selector)
            while selector.get_map() and not cancelled():
                for key, _ in selector.select(LOOK_SECONDS):
                    reader: _Reader = key.data
                    yield from reader.receive()
                    if reader.ended:
                        selector.unregister(key.fileobj)
                        fruitless = 0 if reader.read else fruitless + 1
                        yield from reader.give_up(1 if fruitless < MOST_FRUITLESS else len(candidates))
                        self._start(reader.unread, selector)

    def _start(self, candidates: Sequence[Candidate], selector: selectors.BaseSelector) -> None:
        if candidates:
            reader = self._idle.pop() if self._idle else self._running.enter_context(_Reader())
            reader.send(candidates)
            selector.register(reader.output, selectors.EVENT_READ, reader)


def read_in_processes(candidates: Sequence[Candidate], cancelled: Callable[[], bool]) -> Iterator[Entry]:
    """Read folders in processes that end with the last of them, or when nothing more is asked for."""
    with Readers() as read:
        yield from read(candidates, cancelled)


def _most() -> int:
    return min(MOST_PROCESSES, os.cpu_count() or 1)


def _unread(candidate: Candidate) -> Entry:
    model = unreadable(candidate, "reading it ended the process that did")
    return Entry(candidate.place.path, 0, 0, models=(model,), weights=(b"",))


class _Reader:
    """One process and the folders that it was given, of which it has answered the first `read`."""

    def __init__(self) -> None:
        self._candidates: Sequence[Candidate] = ()
        self.read = 0
        self.ended = False
        self._buffer = bytearray()
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.output, self._input = self._process.stdout, self._process.stdin

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self.output.close()
        self._process.wait()

    @property
    def unread(self) -> Sequence[Candidate]:
        return self._candidates[self.read :]

    def send(self, candidates: Sequence[Candidate]) -> None:
        """Say which folders to read."""
        self._candidates = candidates
        # One that ended at once has closed its end; its output tells.
        with contextlib.suppress(BrokenPipeError), self._input as sent:
            sent.write(msgspec.msgpack.encode(candidates))

    def receive(self) -> Iterator[Entry]:
        """Yield the entries that have come whole."""
        data = os.read(self.output.fileno(), _CHUNK)
        self.ended = not data
        self._buffer += data
        try:
            yield from self._entries()
        except (msgspec.MsgspecError, ValueError):
            # Something else writes on its stdout: nothing that follows can be trusted.
            self._process.kill()
            self._buffer.clear()
            self.ended = True

    def _entries(self) -> Iterator[Entry]:
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            end = start + _LENGTH.size + length
            if end > len(self._buffer):
                break
            entry = _DECODER.decode(self._buffer[start + _LENGTH.size : end])
            if entry.path != self._candidates[self.read].place.path:
                raise ValueError(entry.path)
            self.read += 1
            start = end
            yield entry
        del self._buffer[:start]

    def give_up(self, count: int) -> Iterator[Entry]:
        """Describe the folder that the process ended at, or several."""
        for candidate in self.unread[:count]:
            self.read += 1
            yield _unread(candidate)
