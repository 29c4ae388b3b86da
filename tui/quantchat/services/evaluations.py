"""What the screen knows of the models' quality, and the evaluation that runs on behind it: one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport, JobError, UsageError, explained
from quantchat.services.facts import Listener, Notice, QualityChanged
from quantchat.services.library import EngineFactory
from quantchat.services.quality import QualityMarks

if TYPE_CHECKING:
    from quantchat.services.evaluating import Progress, Result, Wish

Ended = Literal["", "done", "cancelled", "failed"]


class Evaluation:
    """One evaluation as it stands.

    Attributes:
        models: What is measured, and `reference` what against.
        progress: The last step; None before the first.
        results: Of those that are done; all of them in the end.
        error: Why it failed.
        ended: How it ended; empty while it runs.
    """

    def __init__(self, models: Sequence[ModelInfo], reference: ModelInfo | None) -> None:
        self.models, self.reference = tuple(models), reference
        self.progress: Progress | None = None
        self.results: tuple[Result, ...] = ()
        self.error: ErrorReport | None = None
        self.ended: Ended = ""

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return self.progress.share if self.progress is not None else 0.0

    @property
    def failures(self) -> list[ErrorReport]:
        """Why models could not be measured."""
        own = [self.error] if self.error is not None else []
        return own + [result.error.report for result in self.results if result.error is not None]


class QualityDesk:
    """What is known of the models' quality, and the evaluation of this program, the last one also after its end.

    Args:
        listener: Hears of each step, of the end, and of marks that changed.
        models: Gives the models that are there now.
        engine_factory: Makes the clients of the evaluation's engine processes.

    Attributes:
        last: The evaluation that runs, or ran last.
        watchers: More who want to hear of it while they are there, such as a screen.
        marks: What the rows of models say.
    """

    def __init__(
        self,
        listener: Listener,
        models: Callable[[], Sequence[ModelInfo]],
        engine_factory: EngineFactory | None = None,
    ) -> None:
        self._listen = listener
        self._models = models
        self._engine_factory = engine_factory
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self.last: Evaluation | None = None
        self.watchers: set[Callable[[Evaluation], None]] = set()
        self.marks = QualityMarks(lambda: listener(QualityChanged()))

    @property
    def running(self) -> Evaluation | None:
        """The evaluation under way."""
        return self.last if self._task is not None and not self._task.done() else None

    def read(self) -> None:
        """Look at what was measured of the models that are there now."""
        self._reading = asyncio.ensure_future(self.marks.refresh(self._models()))

    def start(self, models: Sequence[ModelInfo], reference: ModelInfo | None, wish: Wish) -> Evaluation:
        """Begin to measure models.

        Raises:
            UsageError: if an evaluation runs already.
        """
        if self.running:
            raise UsageError("An evaluation runs already", remedy="Wait for it, or cancel it")
        self.last = Evaluation(models, reference)
        self._task = asyncio.create_task(self._run(self.last, wish))
        return self.last

    def cancel(self) -> None:
        """End the evaluation; what was measured until now stays."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End it, and wait for the end of its engine."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, evaluation: Evaluation, wish: Wish) -> None:
        from quantchat.services.engine import default_engine
        from quantchat.services.evaluating import evaluate
        from quantchat.services.jobs import yielding

        factory = yielding(self._engine_factory or default_engine)

        def step(progress: Progress) -> None:
            evaluation.progress = progress
            self._changed(evaluation)

        try:
            found = await evaluate(evaluation.models, evaluation.reference, wish, step, factory)
        except asyncio.CancelledError:
            evaluation.ended = "cancelled"
        except Exception as error:  # noqa: BLE001 - told to the user, whatever it is
            evaluation.ended, evaluation.error = "failed", explained(error, JobError, "Measuring failed")
        else:
            evaluation.ended, evaluation.results = "done", tuple(found)
        self._changed(evaluation)
        self._tell_end(evaluation)
        # What was measured before a failure is kept, too.
        self.read()

    def _changed(self, evaluation: Evaluation) -> None:
        self._listen(QualityChanged())
        for watcher in list(self.watchers):
            watcher(evaluation)

    def _tell_end(self, evaluation: Evaluation) -> None:
        for failure in evaluation.failures:
            self._listen(Notice(report=failure))
        if evaluation.ended == "done" and not evaluation.failures:
            title = f"{evaluation.models[0].name} is measured"
            words = ErrorReport(code="evaluated", title=title, remedy="/quality shows what came of it")
            self._listen(Notice(report=words, severity="information"))
