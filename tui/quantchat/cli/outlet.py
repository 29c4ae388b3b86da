"""Text to a pipe or a terminal whose other side may be slow, or gone."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from quantchat.cli.descriptors import write_all
from quantchat.domain.text import clean, plain


class Outlet:
    """Writes to a descriptor from a thread of its own: a reader that pauses stops nothing else, and delays no signal.

    Args:
        descriptor: Stays open.
        on_broken: Called once, on that thread, when nothing more can be written.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[OSError], None]) -> None:
        self._descriptor, self._on_broken = descriptor, on_broken
        self._queue: queue.SimpleQueue[bytes | Callable[[], None]] = queue.SimpleQueue()
        self._broken = False
        threading.Thread(target=self._work, name="outlet", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Send something; returns at once."""
        self._queue.put(data)

    async def drained(self) -> None:
        """Wait until all of it was taken, or nothing more can be."""
        loop, empty = asyncio.get_running_loop(), asyncio.Event()
        self._queue.put(lambda: _call(loop, empty.set))
        await empty.wait()

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if not isinstance(item, bytes):
                item()
            elif not self._broken:
                self._put(item)

    def _put(self, data: bytes) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            self._broken = True
            self._on_broken(error)


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)


class Filter:
    """Makes streamed text safe: for eyes as the screen does it, for a pipe by dropping control characters alone."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what can be sent; the two halves of a line end may come apart."""
        if self._shown:
            return clean(text)
        text, self._held = self._held + text, ""
        if text.endswith("\r"):
            text, self._held = text[:-1], "\r"
        return plain(text)

    def flush(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return plain(held)
