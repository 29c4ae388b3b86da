"""The quantization that runs on in the background of the screen: one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantchat.errors import QuantchatError, UsageError
from quantchat.services.engine import EngineFactory, default_engine
from quantchat.services.quantizing.job import QuantizeJob
from quantchat.services.quantizing.plan import JobState, Preflight

if TYPE_CHECKING:
    from quantchat.services.opened import OpenSessions
    from quantchat.store.sessions import SessionStore


class Quantizations:
    """Holds the job of this program, the last one also after its end.

    Args:
        listen: Hears of each step of the job, and of its end.
        engine_factory: Makes the client of its engine process.
        store: Where own sessions are kept; None for the usual place.
        opened: The sessions that this program has open.

    Attributes:
        job: The one that runs, or ran last.
        watchers: More who want to hear while they are there, such as a screen.
    """

    def __init__(
        self,
        listen: Callable[[QuantizeJob], None],
        engine_factory: EngineFactory = default_engine,
        *,
        store: SessionStore | None = None,
        opened: OpenSessions | None = None,
    ) -> None:
        self._listen = listen
        self._engine_factory = engine_factory
        self._store, self._opened = store, opened
        self._task: asyncio.Task[None] | None = None
        self.job: QuantizeJob | None = None
        self.watchers: set[Callable[[QuantizeJob], None]] = set()

    @property
    def running(self) -> bool:
        """Whether a job is under way."""
        return self._task is not None and not self._task.done()

    def start(self, preflight: Preflight) -> QuantizeJob:
        """Begin a job.

        Raises:
            UsageError: if one runs already.
            QuantchatError: if the preflight has errors.
        """
        if self.running:
            raise UsageError("A quantization runs already", remedy="Wait for it, or cancel it")
        job = QuantizeJob(preflight, self._changed, self._engine_factory, store=self._store, opened=self._opened)
        job.require_possible()
        self.job = job
        self._task = asyncio.create_task(self._run(job))
        return job

    def cancel(self) -> None:
        """Stop the job; its state tells when nothing is left of it."""
        if self.job is not None and self.running:
            self.job.cancel()

    async def close(self) -> None:
        """Stop the job and wait for the end of its process."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, job: QuantizeJob) -> None:
        # How it ended stands in its state.
        with contextlib.suppress(QuantchatError):
            await job.run()

    def _changed(self, _state: JobState) -> None:
        if self.job is None:
            return
        self._listen(self.job)
        for watcher in list(self.watchers):
            watcher(self.job)
