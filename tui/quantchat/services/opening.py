"""Reading a session for use: with its lock where that is free, with what its journal holds, however new it is."""

from __future__ import annotations

from quantchat.domain.chat import SCHEMA, Session
from quantchat.errors import SessionNewer, SessionUnreadable, StorageError
from quantchat.services.ownership import Ownership
from quantchat.store.sessions import SessionStore, Stamp, newer_error


class Opener:
    """Reads sessions of a store, and notes which of them may be written."""

    def __init__(self, store: SessionStore, owned: Ownership) -> None:
        self._store = store
        self._owned = owned

    def read(self, session_id: str) -> tuple[Session, Stamp]:
        """Read a session, as its owner if nobody else is; the lock comes first, so that what is read is the latest.

        Raises:
            SessionUnreadable: if the file does not parse; it is in quarantine then.
            StorageError: if it cannot be read.
        """
        self._owned.acquire(session_id)
        try:
            self._fold(session_id)
            session, stamp = self._store.load_stamped(session_id)
        except StorageError:
            self._owned.release(session_id)
            raise
        if session.version > SCHEMA:
            self._owned.refuse(session_id, newer_error(self._store.path(session_id), session.version))
        self._complete(session)
        return session, stamp

    def _fold(self, session_id: str) -> None:
        from quantchat.store.recovery import fold_journal

        if not self._owned.is_refused(session_id):
            try:
                fold_journal(self._store, session_id)
            except SessionNewer as error:
                self._owned.refuse(session_id, error)

    def _complete(self, session: Session) -> None:
        """Bring in what only the journal has, and mark what nobody writes any more."""
        from quantchat.store.recovery import overlay, settle

        foreign = self._owned.why_read_only(session.id) is not None
        if self._owned.is_refused(session.id):
            overlay(session, self._store.journal_path(session.id), running=foreign)
        if not foreign:
            settle(session)
            session.restore_queued()

    def read_again(self, session_id: str) -> tuple[Session, Stamp] | None:
        """Read what another program wrote over a session that is open here; None if there is nothing to be read.

        Raises:
            SessionNewer: if a later quantchat wrote it.
            StorageError: if the disk refuses.
        """
        try:
            theirs, stamp = self._store.load_stamped(session_id)
        except SessionUnreadable:
            # It is in quarantine now; what is here is written in its place.
            return None
        except StorageError as error:
            if error.report.code != "session-missing":
                raise
            return None
        if theirs.version > SCHEMA:
            newer = newer_error(self._store.path(session_id), theirs.version)
            self._owned.refuse(session_id, newer)
            raise newer
        return theirs, stamp
