"""How a job reports and hears of a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from quantchat.engine.bars import transformers_bars
from quantchat.errors import Cancelled

T = TypeVar("T")


class Watch:
    """Forwards progress that only rises, and turns a requested stop into an exception."""

    def __init__(self, progress: Callable[[str, int, int], None], cancelled: Callable[[], bool]) -> None:
        self._progress = progress
        self.cancelled = cancelled
        self._stage = ""
        self._done = -1

    def check(self) -> None:
        """Raise `Cancelled` if the user asked for a stop."""
        if self.cancelled():
            raise Cancelled("Stopped")

    def report(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell how far a stage is; steps that do not rise are dropped."""
        if stage == self._stage and done <= self._done:
            return
        self._stage, self._done = stage, done
        self._progress(stage, done, total)

    def each(self, items: Iterable[T], stage: str, total: int) -> Iterator[T]:
        """Iterate, reporting and checking between the items."""
        for done, item in enumerate(items):
            self.check()
            self.report(stage, done, total)
            yield item
        self.report(stage, total, total)


@contextmanager
def transformers_progress(watch: Watch, stage: str) -> Iterator[None]:
    """Send transformers' own progress bars to the watch while a model is read."""

    def step(done: int, total: int) -> None:
        watch.check()
        watch.report(stage, done, total)

    with transformers_bars(step):
        yield
