"""Search in all sessions as somebody types: what is on the disk, and what is open here and not written yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from quantchat.domain.chat import Session, SessionSummary
from quantchat.domain.found import Found, Hit, Part, fold, hits, parts
from quantchat.services.background import in_background
from quantchat.store.sessions import SessionStore

if TYPE_CHECKING:
    from quantchat.services.archive import Archive

    Texts = tuple[SessionSummary, list[Part]]

MOST_HITS = 200
MOST_OF_ONE = 20
"""Hits of one session, so that a long one does not hide the others."""


class Finder:
    """Searches the sessions of an archive, off the event loop."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

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
            return await in_background(
                find, self._archive.store, text, opened=opened, only=session, most=most, stop=stop.is_set
            )
        finally:
            stop.set()


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
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Search now, on this thread; see `Finder.search`.

    Args:
        opened: Sessions whose latest state may not be on the disk; they are not looked for there.
        stop: Asked now and then; what was found by then is returned.
    """
    needle = fold(text)
    if not needle:
        return Found(text=text)
    held = {summary.id: (summary, texts) for summary, texts in opened}
    found: list[Hit] = []
    count, complete = 0, True
    rows = [summary for summary in store.list() if summary.id not in held] + [summary for summary, _ in held.values()]
    for summary in sorted(rows, key=lambda row: (row.updated, row.id), reverse=True):
        if stop():
            break
        if only not in (None, summary.id):
            continue
        own = _hits_of(store, summary, held.get(summary.id), needle)
        count += bool(own)
        kept = own[: most if only else MOST_OF_ONE][: most - len(found)]
        complete = complete and len(kept) == len(own)
        found += kept
    return Found(text=text, hits=tuple(found), sessions=count, complete=complete)


def _hits_of(store: SessionStore, summary: SessionSummary, texts: Texts | None, needle: str) -> list[Hit]:
    if texts is not None:
        return hits(summary, texts[1], needle)
    session = store.peek(summary.id)
    return hits(SessionSummary.of(session), list(parts(session)), needle) if session is not None else []
