"""Downloads that run on in the background of the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Literal

from quantchat.errors import ErrorReport, FetchError, QuantchatError, StorageError
from quantchat.services.pull.client import events_of
from quantchat.services.pull.describing import progress_line
from quantchat.services.pull.plan import Plan
from quantchat.services.pull.progress import Progress, Tracker
from quantchat.services.pull.words import Fetch, Fetched, Limits, Moved

State = Literal["running", "done", "failed", "cancelled"]

LIMITS = Limits(tick=0.5)
"""A screen far away need not hear more often."""
AGAIN = "Run it again: what has arrived is kept"


class Job:
    """One download and how it stands; `error` says why it failed, `folder` where it is."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tracker = Tracker(plan.files)
        self.progress: Progress = self.tracker.now()
        self.state: State = "running"
        self.error: ErrorReport | None = None
        self.folder = ""

    @property
    def name(self) -> str:
        """What it brings."""
        return str(self.plan.wanted)

    def line(self) -> str:
        """Say how it stands."""
        match self.state:
            case "running":
                return f"{self.progress.share:.0%} {progress_line(self.progress)}"
            case "failed":
                return self.error.sentence() if self.error is not None else "failed"
            case "cancelled":
                return "Stopped. What has arrived is kept, and gone on with the next time."
            case _:
                return f"Here, and checked: {self.folder}"


class Pulls:
    """All downloads of this program.

    Args:
        listen: Hears of a download that moved or ended.

    Attributes:
        watchers: More who want to hear while they are there, such as a dialog.
    """

    def __init__(self, listen: Callable[[Job], None]) -> None:
        self._listen = listen
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self.watchers: set[Callable[[Job], None]] = set()
        self.jobs: list[Job] = []

    @property
    def running(self) -> list[Job]:
        """The downloads under way, oldest first."""
        return [job for job in self.jobs if job.state == "running"]

    def line(self) -> str:
        """Say how the downloads under way stand; empty if there is none."""
        if not self.running:
            return ""
        *others, job = self.running
        more = f" (and {len(others)} more)" if others else ""
        return f"Downloading {job.name}{more}: {job.line()}"

    def find(self, name: str) -> Job | None:
        """Return the download under way of a repository."""
        return next((job for job in self.running if job.name == name), None)

    def start(self, plan: Plan) -> Job:
        """Begin a download; one of the same revision that is under way goes on instead.

        Raises:
            FetchError: if no file is taken.
            StorageError: if the disk has no room for it beside the others.
        """
        going = self.find(str(plan.wanted))
        if going is not None:
            return going
        task = plan.task(LIMITS)
        self._leave_room(plan)
        job = Job(plan)
        self.jobs = [*(old for old in self.jobs if old.name != job.name), job]
        self._tasks[job] = asyncio.create_task(self._run(job, task))
        self._tell(job)
        return job

    def _leave_room(self, plan: Plan) -> None:
        coming = sum(max(job.progress.total - job.progress.done, 0) for job in self.running)
        if plan.free is not None and plan.missing and plan.missing + coming > plan.free:
            raise StorageError(
                "The disk has no room for this beside what is being downloaded",
                remedy="Wait for it, or free some space",
                code="disk",
            )

    def cancel(self, job: Job) -> None:
        """Stop a download; what has arrived is kept."""
        if job in self._tasks:
            self._tasks[job].cancel()

    async def close(self) -> None:
        """Stop all downloads and wait for the ends of their processes."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, job: Job, task: Fetch) -> None:
        try:
            async with aclosing(events_of(task)) as events:
                async for event in events:
                    if isinstance(event, Moved):
                        job.progress = job.tracker.take(event)
                        self._tell(job)
                    elif isinstance(event, Fetched):
                        job.folder = event.folder
        except asyncio.CancelledError:
            job.state = "cancelled"
        except QuantchatError as error:
            job.state, job.error = "failed", error.report
        finally:
            self._tasks.pop(job, None)
        if job.state == "running" and job.folder:
            job.state = "done"
        elif job.state == "running":
            job.state, job.error = "failed", FetchError("The download ended without a word", remedy=AGAIN).report
        self._tell(job)

    def _tell(self, job: Job) -> None:
        self._listen(job)
        for watcher in list(self.watchers):
            watcher(job)
