"""When streamed text is shown: the first of it at once, the rest at the link's rate, slower while the terminal lags."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

SLOWEST = 2.0
"""Seconds between two flushes at most."""
_CALM = 8
"""Flushes in a row that the terminal took at once before the rate doubles again."""


class Stoppable(Protocol):
    """A timer."""

    def stop(self) -> None: ...


class Pace:
    """Gathers streamed text and hands it on in time.

    Args:
        hz: Flushes per second on a line that keeps up.
        set_timer: Calls a function after some seconds.
        show: Takes the text.
        lagging: Whether the terminal is behind with what it was sent.
    """

    def __init__(
        self,
        hz: float,
        set_timer: Callable[[float, Callable[[], None]], Stoppable],
        show: Callable[[str], object],
        lagging: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._base = self.interval = 1 / hz
        self._set_timer, self._show, self._lagging, self._clock = set_timer, show, lagging, clock
        self._text: deque[str] = deque()
        self._timer: Stoppable | None = None
        self._flushed = -SLOWEST
        self._calm = 0

    def add(self, text: str) -> None:
        """Take text that has streamed in."""
        self._text.append(text)
        if self._timer is not None:
            return
        wait = self._flushed + self.interval - self._clock()
        if wait <= 0:
            self.flush()
        else:
            self._timer = self._set_timer(wait, self.flush)

    def flush(self) -> None:
        """Hand on what is there."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if not self._text:
            return
        text = "".join(self._text)
        self._text.clear()
        self._adapt()
        self._flushed = self._clock()
        self._show(text)

    def drop(self) -> None:
        """Forget what is there: the message that holds it is drawn as a whole."""
        self._text.clear()

    def _adapt(self) -> None:
        if self._lagging():
            self._calm = 0
            self.interval = min(SLOWEST, self.interval * 2)
            return
        self._calm += 1
        if self._calm >= _CALM and self.interval > self._base:
            self._calm = 0
            self.interval = max(self._base, self.interval / 2)
