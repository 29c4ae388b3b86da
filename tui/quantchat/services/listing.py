"""The list of sessions on the disk, with what is known of it while the disk takes its time."""

from __future__ import annotations

import asyncio

from quantchat.domain.chat import SessionSummary
from quantchat.services.background import in_background
from quantchat.services.facts import Listener, SessionsChanged
from quantchat.store.sessions import SessionStore

PATIENCE = 0.4
"""Seconds after which a list is shown without what is not read yet, and as often it is shown anew."""

Rows = list[SessionSummary]


class Listing:
    """Reads the list off the event loop; a hung disk holds up neither the screen nor quitting."""

    def __init__(self, store: SessionStore, listener: Listener) -> None:
        self._store = store
        self._listen = listener
        self._following: asyncio.Task[None] | None = None

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many sessions are known and how many there are, while they are read; None when all are known."""
        if self._following is None:
            return None
        known = len(self._store.known())
        return known, max(known, self._store.index.total)

    async def rows(self) -> Rows:
        """Return the sessions on the disk, or those known by now; `SessionsChanged` tells when there are more."""
        if self._following is None:
            reading = asyncio.ensure_future(in_background(self._store.list))
            await asyncio.wait({reading}, timeout=PATIENCE)
            if reading.done():
                return reading.result()
            self._following = self._following or asyncio.create_task(self._follow(reading))
        return self._store.known()

    async def _follow(self, reading: asyncio.Future[Rows]) -> None:
        while not reading.done():
            await asyncio.wait({reading}, timeout=PATIENCE)
            if reading.done():
                self._following = None
            self._listen(SessionsChanged())
