"""Leaving when the terminal goes: a dropped SSH line is SIGHUP, `kill` is SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
PATIENCE = 4.0
"""Seconds to save and leave. A terminal that takes nothing any more blocks the leaving, which waits for the writer."""


class HangUp:
    """Calls `leave` on the event loop when a signal says so, and ends the process if that takes too long.

    Not the loop's own signal handlers: those never run while the loop is blocked, and these do. What the answer had so
    far is in its journal, the kernel releases the locks, and the engine ends with its parent.
    """

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        watchdog = threading.Timer(PATIENCE, os._exit, (128 + number,))
        watchdog.daemon = True
        watchdog.start()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leave)

    def remove(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
