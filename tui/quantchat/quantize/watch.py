"""How a job reports and hears of a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from quantchat.engine.bars import transformers_bars
from quantchat.engine.protocol import Event, JobProgress
from quantchat.errors import Cancelled

T = TypeVar("T")


class Watch:
    """Forwards progress that only rises, and turns a requested stop into an exception.

    Args:
        emit: Takes the job's events.
        cancelled: Whether the user asked for a stop.
        job: The job's name.
        weights: The stages in their order, and how long each takes beside the others; without them no share is told.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        job: str = "",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.emit = emit
        self.cancelled = cancelled
        self.job = job
        self._stage = ""
        self._done = -1
        self._share = 0.0
        self._spans: dict[str, tuple[float, float]] = {}
        self.plan(weights or {})

    def plan(self, weights: Mapping[str, float]) -> None:
        """Say which stages are still to come, and how long each takes beside the others; they fill what is left."""
        begin, whole = self._share, sum(weights.values())
        self._spans = {}
        for stage, weight in weights.items():
            length = (1.0 - self._share) * weight / whole
            self._spans[stage] = (begin, length)
            begin += length

    def check(self) -> None:
        """Raise `Cancelled` if the user asked for a stop."""
        if self.cancelled():
            raise Cancelled("Stopped")

    def report(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell how far a stage is; steps that do not rise are dropped."""
        if stage == self._stage and done <= self._done:
            return
        self._stage, self._done = stage, done
        begin, length = self._spans.get(stage, (0.0, 0.0))
        self._share = min(1.0, max(self._share, begin + (length * done / total if total else 0.0)))
        self.emit(JobProgress(job=self.job, stage=stage, done=done, total=total, share=self._share))

    def finish(self, stage: str = "done") -> None:
        """Tell that the whole job is done."""
        self._share = 1.0
        self.emit(JobProgress(job=self.job, stage=stage, done=1, total=1, share=1.0))

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
