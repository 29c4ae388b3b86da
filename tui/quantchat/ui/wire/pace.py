"""When streamed text is shown: the first of it at once, the rest at the link's rate, slower while the terminal lags."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, Protocol, TypeVar

SLOWEST = 2.0
"""Seconds between two flushes at most."""
_CALM = 8
"""Flushes in a row that the terminal took at once before the rate doubles again."""


Where = TypeVar("Where", bound=Hashable)


class Stoppable(Protocol):
    """A timer."""

    def stop(self) -> None: ...


class Pace(Generic[Where]):
    """Gathers streamed text and hands it on in time.

    Args:
        hz: Flushes per second on a line that keeps up.
        set_timer: Calls a function after some seconds.
        show: Takes text and where it belongs.
        lagging: Whether the terminal is behind with what it was sent.
    """

    def __init__(
        self,
        hz: float,
        set_timer: Callable[[float, Callable[[], None]], Stoppable],
        show: Callable[[Where, str], object],
        lagging: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._base = self.interval = 1 / hz
        self._set_timer, self._show, self._lagging, self._clock = set_timer, show, lagging, clock
        self._pieces: list[tuple[Where, list[str]]] = []
        self._timer: Stoppable | None = None
        self._flushed = -SLOWEST
        self._calm = 0

    def add(self, where: Where, text: str) -> None:
        """Take text that has streamed in."""
        if self._pieces and self._pieces[-1][0] == where:
            self._pieces[-1][1].append(text)
        else:
            self._pieces.append((where, [text]))
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
        pieces, self._pieces = self._pieces, []
        if not pieces:
            return
        self._adapt()
        self._flushed = self._clock()
        for where, texts in pieces:
            self._show(where, "".join(texts))

    def drop(self) -> None:
        """Forget what is there: the message that holds it is drawn as a whole."""
        self._pieces.clear()

    def _adapt(self) -> None:
        if self._lagging():
            self._calm = 0
            self.interval = min(SLOWEST, self.interval * 2)
            return
        self._calm += 1
        if self._calm >= _CALM and self.interval > self._base:
            self._calm = 0
            self.interval = max(self._base, self.interval / 2)
