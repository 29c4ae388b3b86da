"""Looking for models: at the start, when asked, and while somebody has the list before their eyes.

Those of servers, which others ask, are put beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport
from quantchat.services.background import in_background
from quantchat.services.facts import Listener, ModelsChanged, Notice

if TYPE_CHECKING:
    from quantchat.catalog.index import Index
    from quantchat.catalog.scan import ScanResult

WATCH_SECONDS = 3.0
WATCH_SHARE = 0.02
"""Looking for changes takes at most this share of the time, however slow the disk is and however much lies there."""
SHOWN_PROBLEMS = 3

Models = tuple[ModelInfo, ...]


class Scanner:
    """The models that are on this machine, kept as the disk has them, and those of servers.

    The walk runs on a thread, where it mostly waits for the system; folders that are not in the index are read by
    processes of their own, because one large header would hold the interpreter for longer than a frame.

    Attributes:
        models: What was found last; while a scan goes on, also what it has found so far.
    """

    def __init__(self, listener: Listener, folders: Sequence[Path] = ()) -> None:
        self._found: Models = ()
        self._served: Models = ()
        self.models: Models = ()
        self._asked = 0
        self._listen = listener
        self._folders = tuple(folders)
        self._index: Index | None = None
        self._lock = asyncio.Lock()
        self._stop = threading.Event()
        self._work: asyncio.Future[tuple[ScanResult, Index]] | None = None
        self._due = 0.0
        self._told: set[ErrorReport] = set()

    @property
    def scanning(self) -> bool:
        """Whether somebody waits for a scan."""
        return self._asked > 0

    async def scan(self) -> None:
        """Look for models in all roots; one that is under way ends first."""
        self._asked += 1
        try:
            async with self._lock:
                self._told.clear()
                await self._scan(asked=True)
        finally:
            self._asked -= 1

    async def look_in(self, folders: Sequence[Path]) -> None:
        """Look for models in these folders beside the usual ones; a scan under way is broken off."""
        self._folders = tuple(folders)
        self.cancel()
        await self.scan()

    @property
    def due(self) -> bool:
        """Whether it is time to look for changes."""
        return not self._lock.locked() and time.monotonic() >= self._due

    async def watch(self) -> None:
        """Look for changes on the disk; says nothing if there are none."""
        if self.due:
            async with self._lock:
                await self._scan(asked=False)

    def cancel(self) -> None:
        """Break a scan off, without waiting for a disk that hangs; its processes end within a twentieth of a second."""
        self._stop.set()
        if self._work is not None:
            self._work.cancel()

    async def _scan(self, *, asked: bool) -> None:
        stop = self._stop = threading.Event()
        loop = asyncio.get_running_loop()
        begun = time.monotonic()

        def tell(models: Models) -> None:
            # The loop is closed when the program has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._grow, stop, models)

        # The thread of a scan that was broken off may still be at work with its index: the next one takes another.
        index, self._index = self._index, None
        self._work = asyncio.ensure_future(in_background(self._search, index, stop, tell))
        try:
            result, self._index = await self._work
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return
        finally:
            stop.set()
        self._due = time.monotonic() + max(WATCH_SECONDS, (time.monotonic() - begun) / WATCH_SHARE)
        self._take(result, asked=asked)

    def _search(
        self, index: Index | None, stop: threading.Event, tell: Callable[[Models], None]
    ) -> tuple[ScanResult, Index]:
        # Not at the top: the first frame does not need them, and here they do not hold up the loop.
        from quantchat.catalog.index import open_index
        from quantchat.catalog.readers import Readers
        from quantchat.catalog.roots import default_roots
        from quantchat.catalog.scan import scan

        if index is None or index.outdated:
            index = open_index()
        roots = default_roots(self._folders)
        with Readers() as read:
            return scan(roots, stop.is_set, index=index, read=read, tell=tell, expect=read.expect), index

    def _grow(self, stop: threading.Event, models: Models) -> None:
        """Show what a scan has found so far, beside what the last one knew."""
        if stop.is_set():
            return
        now = {model.path for model in models}
        grown = (*models, *(model for model in self._found if model.path not in now))
        self._show(_sorted(grown))

    def take_served(self, models: Models) -> None:
        """Take the models of all servers in place of those that were known."""
        self._served = models
        self._tell(always=False)

    def _take(self, result: ScanResult, *, asked: bool) -> None:
        self._show(result.models, always=asked)
        new = [problem for problem in result.problems if problem not in self._told]
        self._told.update(new)
        if new:
            self._listen(Notice(report=_gathered(new), severity="warning"))

    def _show(self, models: Models, *, always: bool = False) -> None:
        self._found = models
        self._tell(always=always)

    def _tell(self, *, always: bool) -> None:
        models = _sorted((*self._found, *self._served)) if self._served else self._found
        if always or models != self.models:
            self.models = models
            self._listen(ModelsChanged())


def _sorted(models: Models) -> Models:
    return tuple(sorted(models, key=lambda model: (model.name.casefold(), model.path)))


def _gathered(problems: Sequence[ErrorReport]) -> ErrorReport:
    """Tell all in one: below a shared folder there may be hundreds of other users' own."""
    if len(problems) == 1:
        return problems[0]
    details = " ".join(problem.detail for problem in problems[:SHOWN_PROBLEMS])
    return msgspec.structs.replace(
        problems[0],
        title=f"{len(problems)} folders cannot be searched for models",
        detail=details if len(problems) <= SHOWN_PROBLEMS else f"{details} …",
    )
