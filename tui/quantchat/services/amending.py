"""Changing a session that nobody has open: locked, read, changed and written in one go."""

from __future__ import annotations

from collections.abc import Callable

from quantchat.domain.chat import SCHEMA, Session
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore, newer_error

Change = Callable[[Session], object]


def amend_stored(store: SessionStore, locks: SessionLocks, session_id: str, change: Change) -> None:
    """Change a session on the disk, with what its journal holds; its place in the list stays.

    Raises:
        SessionLocked: if a process has it open.
        SessionNewer: if a later quantchat wrote it.
        StorageError: if it cannot be read or written; it is then as it was.
    """
    from quantchat.store.recovery import fold_journal

    with locks.acquire(session_id):
        fold_journal(store, session_id)
        session = store.load(session_id)
        if session.version > SCHEMA:
            raise newer_error(store.path(session_id), session.version)
        change(session)
        store.save(session)


def retitle(session: Session, title: str) -> None:
    """Give a session the user's title; white space is none."""
    if words := " ".join(title.split()):
        session.title, session.named_by = words, "user"
