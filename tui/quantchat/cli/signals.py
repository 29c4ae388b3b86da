"""Signals of a command that now waits for a line and now runs an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

LEAVE = (signal.SIGTERM, signal.SIGHUP)
NUMBERS = (signal.SIGINT, *LEAVE)
LOOK_SECONDS = 0.25
"""A signal that comes just before the wait for input begins does not end it: it is looked at so often."""


class Interrupted(Exception):
    """A signal came while a line was awaited."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """Breaks into the waiting for a line, and is told to `on_signal` while the loop runs; none is lost in between."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reading = False
        self._came: deque[int] = deque()
        self._woken, self._wakes = socket.socketpair()
        self.on_signal: Callable[[int], None] | None = None

    def __enter__(self) -> Signals:
        # The handler of a signal that comes just before the loop begins to wait runs only when something wakes it.
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._loop.add_reader(self._woken, lambda: self._woken.recv(1 << 12))
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in NUMBERS:
            # `nohup` and shells in the background have some of them ignored; that stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._heard)
        signal.signal(signal.SIGALRM, lambda _number, _frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # All is saved and the process ends: one more must not spoil its exit status.
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self._loop.remove_reader(self._woken)
        self._woken.close()
        self._wakes.close()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._reading:
            # A second one must not break into what the first one begins.
            self._reading = False
            raise Interrupted(number)
        self.tell(number)

    def tell(self, number: int) -> None:
        """Act as if a signal came, from any thread, while no line is awaited."""
        self._came.append(number)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.deliver)

    def deliver(self) -> None:
        """Tell what came."""
        while self._came and self.on_signal is not None:
            self.on_signal(self._came.popleft())

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let signals break into the block.

        Raises:
            Interrupted: when one comes, or has come already.
        """
        self._reading = True
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
        try:
            if self._came:
                raise Interrupted(self._came.popleft())
            yield
        finally:
            self._reading = False
            signal.setitimer(signal.ITIMER_REAL, 0)
