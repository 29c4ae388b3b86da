"""The end of the wire: writes in Textual's writer thread, and knows how much the terminal has not taken yet."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import monotonic
from typing import TextIO


class Outlet:
    """A text file for Textual's writer thread.

    `put` on the thread's queue blocks when thirty writes wait, and with it the event loop. So whoever draws asks
    `is_free` first, draws nothing while a write is under way, and is told through `on_free` when it is done.
    """

    def __init__(self, file: TextIO, on_free: Callable[[], object]) -> None:
        self._file = file
        self._on_free = on_free
        self._announced = 0
        self._written = 0
        self._since = 0.0
        self._wanted = False
        self.lag = 0.0
        """Seconds that the last write took."""
        self.broken = False
        """Whether the terminal is gone; what is written then is thrown away."""

    @property
    def busy(self) -> bool:
        return self._announced > self._written

    def restart(self) -> None:
        """Count anew for a new writer thread; what the last one left is lost."""
        self._announced = self._written = 0
        self.lag = 0.0

    def is_free(self) -> bool:
        """Return whether nothing is under way; if something is, `on_free` will be called."""
        self._wanted = True
        if self.busy:
            return False
        self._wanted = False
        return True

    @property
    def waiting(self) -> float:
        """Seconds since the write under way was handed over."""
        return monotonic() - self._since if self.busy else 0.0

    def announce(self) -> None:
        """Count a write that is put on the thread's queue."""
        if not self.busy:
            self._since = monotonic()
        self._announced += 1

    def write(self, text: str) -> int:
        """Write everything; blocks the thread it is called in until the terminal took it."""
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data and not self.broken:
                data = data[self._write_some(data) :]
        except OSError:
            self.broken = True
        self._written += 1
        if not self.busy:
            self.lag = monotonic() - self._since
            if self._wanted:
                self._on_free()
        return len(text)

    def _write_some(self, data: memoryview) -> int:
        descriptor = self._file.fileno()
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            # Another program with this terminal, such as an editor, may have left it so that writes do not wait.
            select.select([], [descriptor], [])
            return 0

    def flush(self) -> None:
        """Nothing is kept back."""

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()
