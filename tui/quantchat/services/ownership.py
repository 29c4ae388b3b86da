"""Which sessions this program may write: the locks that it holds, and why it has not got the others."""

from __future__ import annotations

import time
from collections.abc import Iterator

from quantchat.errors import SessionLocked, SessionNewer, StorageError
from quantchat.store.locks import SIGN_SECONDS, SessionLock, SessionLocks


class Ownership:
    """The locks of one program."""

    def __init__(self, locks: SessionLocks) -> None:
        self.locks = locks
        self._held: dict[str, SessionLock] = {}
        self._refused: dict[str, StorageError] = {}
        self._signed = time.monotonic()

    def acquire(self, session_id: str) -> None:
        """Take the lock of a session, or note why that was refused."""
        if session_id in self._held:
            return
        try:
            self._held[session_id] = self.locks.acquire(session_id)
            self._refused.pop(session_id, None)
        except StorageError as error:
            self._refused[session_id] = error

    def release(self, session_id: str) -> None:
        """Give a lock back, and forget why there was none."""
        self._refused.pop(session_id, None)
        lock = self._held.pop(session_id, None)
        if lock is not None:
            lock.release()

    def refuse(self, session_id: str, error: StorageError) -> None:
        """Note that a session must not be written from here."""
        self.release(session_id)
        self._refused[session_id] = error

    @property
    def held(self) -> list[str]:
        """The sessions whose locks are held here."""
        return list(self._held)

    def holds(self, session_id: str) -> bool:
        """Whether the lock is held here."""
        return session_id in self._held

    def is_refused(self, session_id: str) -> bool:
        """Whether there is no lock, for whatever reason; with a disk that refuses, writing is tried all the same."""
        return session_id in self._refused

    def why_read_only(self, session_id: str) -> StorageError | None:
        """Return why a session must not be written from here, if so."""
        error = self._refused.get(session_id)
        return error if isinstance(error, SessionLocked | SessionNewer) else None

    def was_lost(self, session_id: str) -> bool:
        """Whether the lock is not the one on the disk any more. May be called on any thread."""
        lock = self._held.get(session_id)
        return lock is not None and not lock.is_held()

    def due_signs(self) -> Iterator[tuple[str, SessionLock]]:
        """Yield the locks that must give a sign of life now: none, except once in a while."""
        if time.monotonic() - self._signed >= SIGN_SECONDS:
            self._signed = time.monotonic()
            yield from list(self._held.items())

    def release_all(self) -> None:
        """Give all locks back."""
        for session_id in self.held:
            self.release(session_id)
