"""Search in all sessions as somebody types: what is on the disk, and what is open here and not written yet."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from quantchat.domain.chat import Session, SessionSummary
from quantchat.domain.found import Found, Hit, Part, fold, hits, parts
from quantchat.services.background import in_background
from quantchat.services.facts import IndexChanged, Listener
from quantchat.store.index import Stop
from quantchat.store.indexing import Indexer
from quantchat.store.sessions import SessionStore

if TYPE_CHECKING:
    from quantchat.services.archive import Archive

    Texts = tuple[SessionSummary, list[Part]]

MOST_HITS = 200
MOST_OF_ONE = 20
"""Hits of one session, so that a long one does not hide the others."""


class Finder:
    """Searches the sessions of an archive, off the event loop, and keeps the index that makes it fast.

    Attributes:
        indexing: How many sessions were put into the index and how many there are to put, while that goes on.
    """

    def __init__(self, archive: Archive, listener: Listener = lambda fact: None) -> None:
        self.indexing: tuple[int, int] | None = None
        self._archive = archive
        self._listen = listener
        self._indexer = Indexer(archive.store)
        self._at_work = False
        self._indexing: asyncio.Task[None] | None = None
        self._closed = threading.Event()

    async def search(self, text: str, *, session: str | None = None, most: int = MOST_HITS) -> Found:
        """Return where a text stands, in any case and however its words are spaced; cancel it to break it off.

        Args:
            text: Any part of a text; nothing is found where it is empty.
            session: Look in this one only.
            most: Hits to return at most.
        """
        if not fold(text):
            return Found(text=text)
        stop = threading.Event()
        opened = [texts_of(one) for one in self._archive.opened()]
        try:
            found = await in_background(
                find, self._archive.store, text, opened=opened, only=session, most=most, stop=stop.is_set
            )
        finally:
            stop.set()
        if self._indexing is None and self._indexer.due:
            self._indexing = asyncio.create_task(self.keep_index())
        return found

    async def keep_index(self) -> None:
        """Put into the index what is missing there, if it is much; at the start, and when somebody searches."""
        if self._at_work:
            return
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            # The loop is closed when the program has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._show, (done, total))

        self._at_work = True
        try:
            # What it writes can be lost at any moment, so quitting does not wait for it.
            await in_background(self._indexer.complete, self._closed.is_set, tell)
        finally:
            self._at_work, self._indexing = False, None
            self._show(None)

    def close(self) -> None:
        """Break the indexing off; what is written counts."""
        self._closed.set()

    def _show(self, progress: tuple[int, int] | None) -> None:
        progress = progress if self._at_work else None
        if progress != self.indexing and not self._closed.is_set():
            self.indexing = progress
            self._listen(IndexChanged())


def texts_of(session: Session) -> Texts:
    """Return the row of a session and its texts as they are now, to be searched on another thread."""
    return SessionSummary.of(session), list(parts(session))


def find(
    store: SessionStore,
    text: str,
    *,
    opened: Iterable[Texts] = (),
    only: str | None = None,
    most: int = MOST_HITS,
    stop: Stop = lambda: False,
) -> Found:
    """Search now, on this thread; see `Finder.search`.

    Args:
        opened: Sessions whose latest state may not be on the disk; they are not looked for there.
        stop: Asked now and then; what was found by then is returned.
    """
    needle = fold(text.replace("\0", ""))
    if not needle:
        return Found(text=text)
    held = {summary.id: (summary, texts) for summary, texts in opened}
    rows = [summary for summary in store.list() if summary.id not in held]
    sure, unsure = (set[str](), {only}) if only else store.index.matching(needle, stop)
    candidates = [row for row in rows if row.id in sure or row.id in unsure] + [row for row, _ in held.values()]
    search = _Search(store, needle, held, most, most if only else MOST_OF_ONE)
    for row in sorted(candidates, key=lambda row: (row.updated, row.id), reverse=True):
        if stop():
            break
        if only in (None, row.id):
            search.take(row, known=row.id in sure)
    return Found(
        text=text,
        hits=tuple(search.found),
        sessions=search.sessions,
        complete=search.complete,
        counted=search.counted,
    )


class _Search:
    """Gathers hits until there are enough."""

    def __init__(self, store: SessionStore, needle: str, held: dict[str, Texts], most: int, most_of_one: int) -> None:
        self.found: list[Hit] = []
        self.sessions = 0
        self.complete = self.counted = True
        self._store, self._needle, self._held = store, needle, held
        self._most, self._most_of_one = most, most_of_one

    def take(self, row: SessionSummary, *, known: bool) -> None:
        """Look through a session; when there are hits enough it is only counted, if it is known to hold the text."""
        room = min(self._most - len(self.found), self._most_of_one)
        if not room:
            self.sessions += known
            self.complete, self.counted = False, self.counted and known
            return
        own = hits(row, self._texts(row), self._needle)
        kept = list(islice(own, room))
        self.found += kept
        self.sessions += bool(kept)
        self.complete = self.complete and next(own, None) is None

    def _texts(self, row: SessionSummary) -> Iterable[Part]:
        if row.id in self._held:
            return self._held[row.id][1]
        read = self._store.read_for_index(row.id)
        return parts(read[0]) if read is not None else ()
