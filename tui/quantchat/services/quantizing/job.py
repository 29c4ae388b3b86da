"""A quantization from its start to the model that answers, in an engine process of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from quantchat.domain.chat import new_id
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.engine.protocol import Quantize
from quantchat.errors import Cancelled, JobError, explained
from quantchat.services.engine import EngineFactory, default_engine
from quantchat.services.jobs import run_job, yielding
from quantchat.services.quantizing.finishing import Finisher, after_seconds
from quantchat.services.quantizing.plan import JobState, Outcome, Preflight
from quantchat.services.quantizing.progress import OnChange, Tracker
from quantchat.staging import remove_stale

if TYPE_CHECKING:
    from quantchat.services.opened import OpenSessions
    from quantchat.store.sessions import SessionStore

logger = logging.getLogger(__name__)

USUAL_SECONDS = 120.0
"""Taken where the preflight could not estimate it."""


def stopped() -> Cancelled:
    """Return the error of a job that the user stopped."""
    detail = "Nothing half made was left"
    return Cancelled("Stopped", detail, "A quantization cannot be resumed: the next one begins anew")


class QuantizeJob:
    """One quantization.

    Args:
        preflight: Of `examine`, without errors.
        on_change: Hears of each step, on the event loop.
        engine_factory: Makes the client of an engine process; tests pass another.
        store: Where own sessions are kept; None for the usual place.
        opened: The sessions that this program has open.
        clock: Counts seconds.
    """

    def __init__(
        self,
        preflight: Preflight,
        on_change: OnChange = lambda _state: None,
        engine_factory: EngineFactory = default_engine,
        *,
        store: SessionStore | None = None,
        opened: OpenSessions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.preflight = preflight
        self._engine_factory = engine_factory
        self._store, self._opened = store, opened
        self._calibration = preflight.plan.calibration
        quantizing = preflight.seconds or USUAL_SECONDS
        self._tracker = Tracker(quantizing, after_seconds(preflight.plan), on_change, clock)
        self._task: asyncio.Task[None] | None = None
        self._asked_to_stop = False

    @property
    def state(self) -> JobState:
        """How it stands at this moment."""
        return self._tracker.state

    async def run(self) -> Outcome:
        """Do it, to the end.

        A stop after the model was made only leaves out what is done with it then.

        Raises:
            Cancelled: if `cancel` was called before the model was made; nothing half made is left.
            QuantchatError: what stands against it, or what it failed with; nothing half made is left.
        """
        self.require_possible()
        self._tracker.begin()
        try:
            await self._do(self._quantize())
        except asyncio.CancelledError:
            # A stop may come in the moment in which the folder got its name.
            if not self.preflight.output.is_dir():
                raise self._stopped() from None
            if not self._asked_to_stop:
                finisher = self._finisher()
                finisher.leave_out()
                self._tracker.end("done", outcome=finisher.outcome())
                raise
        except Exception as error:
            self._tracker.end("failed", explained(error, JobError, "Quantizing failed"))
            raise
        return await self._finish()

    def cancel(self) -> None:
        """Stop it; `run` ends with `Cancelled` once nothing is left of it."""
        self._asked_to_stop = True
        if self._task is not None:
            self._task.cancel()

    def require_possible(self) -> None:
        """Raise the first error of the preflight."""
        if (refusal := self.preflight.refusal()) is not None:
            raise refusal

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.ensure_future(work)
        if self._asked_to_stop:
            self._task.cancel()
        await self._task

    def _stopped(self) -> BaseException:
        """End as cancelled, for who asked: by `cancel`, or by cancelling who waits for `run`."""
        self._tracker.end("cancelled", stopped().report)
        return stopped() if self._asked_to_stop else asyncio.CancelledError()

    async def _quantize(self) -> None:
        async with self._text() as self._calibration:
            plan = self.preflight.plan
            job = Quantize(
                job=new_id(),
                source=plan.source,
                output=str(self.preflight.output),
                recipe=plan.recipe,
                calibration=self._calibration,
                adapter=plan.adapter,
            )
            try:
                async with aclosing(run_job(job, yielding(self._engine_factory))) as events:
                    async for event in events:
                        self._tracker.take(event)
            finally:
                remove_stale(self.preflight.output)

    @asynccontextmanager
    async def _text(self) -> AsyncIterator[CalibrationChoice]:
        """The calibration text; of own sessions a private file that is there as long as it is used."""
        choice, pick = self.preflight.plan.calibration, self.preflight.plan.sessions
        if pick is None:
            yield choice
            return
        from quantchat.services.calibration import session_text
        from quantchat.store.sessions import SessionStore

        self._tracker.enter("gathering sessions")
        store = self._store or SessionStore()
        async with session_text(pick, store, self._opened, samples=choice.samples, length=choice.length) as text:
            yield text.choice

    async def _finish(self) -> Outcome:
        self._tracker.made()
        finisher = self._finisher()
        try:
            await self._do(finisher.finish())
        except asyncio.CancelledError:
            finisher.leave_out()
            if not self._asked_to_stop:
                self._tracker.end("done", outcome=finisher.outcome())
                raise
        except Exception as error:
            # The model is there all the same.
            logger.exception("what follows a quantization failed")
            finisher.note(explained(error, JobError, "What was to follow failed; the model is whole"))
        self._tracker.end("done", outcome=finisher.outcome())
        return finisher.outcome()

    def _finisher(self) -> Finisher:
        return Finisher(self.preflight, self._calibration, self._tracker, yielding(self._engine_factory))
