"""The sessions that are open here: who may write them, and when they are read anew.

Sessions are owned by the event loop; what is read of one replaces the contents of the object that everybody has.
"""

from __future__ import annotations

from quantchat.domain import tree
from quantchat.domain.chat import Session
from quantchat.errors import ErrorReport, SessionConflict, SessionNewer, StorageError
from quantchat.services.facts import Fact, Listener, Notice, SessionChanged, SessionsChanged
from quantchat.services.opening import Opener
from quantchat.services.ownership import Ownership
from quantchat.services.saving import Saver
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore, missing


class OpenSessions:
    """Opens sessions, and shares them with other programs.

    One that another program has changed meanwhile is merged with what was changed here, so that nothing is lost.
    """

    def __init__(self, listener: Listener, store: SessionStore | None = None) -> None:
        self._listen = listener
        self._store = store or SessionStore()
        self._owned = Ownership(SessionLocks(self._store.root))
        self._open: dict[str, Session] = {}
        self._temporary: set[str] = set()
        self._shown: str | None = None
        self._stale: set[str] = set()
        self._gone: set[str] = set()
        self._going: set[str] = set()
        self._turned: set[str] = set()
        self._opener = Opener(self._store, self._owned)
        self._saver = Saver(self._store, listener, self)

    def open(self, session_id: str) -> Session:
        """Return a session, reading it from disk the first time; a read-only one each time, for it may be free now.

        It is the same object each time; what was read anew replaces its contents.

        Raises:
            SessionUnreadable: if the file does not parse; it is in quarantine then.
            StorageError: if it cannot be read.
        """
        held = self._open.get(session_id)
        if held is not None and not self._must_read(session_id):
            return held
        session = self._read(session_id)
        held = self._open.setdefault(session_id, session)
        # Who shows it must not be left with a stale one, which the next save would write over all that came since.
        _replace(held, session)
        return held

    def _must_read(self, session_id: str) -> bool:
        if session_id in self._stale and not self._saver.is_idle(session_id):
            return False
        return self._is_foreign(session_id)

    def _is_foreign(self, session_id: str) -> bool:
        """Whether another program may have changed a session that is open here."""
        return session_id in self._stale or self.why_read_only(session_id) is not None

    def _read(self, session_id: str) -> Session:
        """Read a session; what was changed here and not saved stays in it."""
        if session_id in self._going:
            # Its file may still be there: who opens it now would write it anew behind the deletion.
            raise missing(session_id)
        try:
            session, stamp = self._opener.read(session_id)
        except StorageError as error:
            if error.report.code == "session-missing" and self.unsaved(session_id) is None:
                self._open.pop(session_id, None)
            raise
        self._stale.discard(session_id)
        self._gone.discard(session_id)
        self._turned.discard(session_id)
        if self.unsaved(session_id) is not None:
            return self._saver.merged(self._open[session_id], session)
        self._saver.known(session, stamp)
        return session

    @property
    def store(self) -> SessionStore:
        """Where the sessions are kept."""
        return self._store

    def opened(self) -> list[Session]:
        """Return the sessions that are open here and hold something, unless another process writes them."""
        own = (session for session in self._open.values() if not self._is_foreign(session.id))
        return [session for session in own if session.messages or session.queued or session.draft]

    def why_read_only(self, session_id: str) -> StorageError | None:
        """Return why a session cannot be written from here, if so."""
        return self._owned.why_read_only(session_id)

    def unsaved(self, session_id: str) -> StorageError | None:
        """Return why the latest state of a session is not on disk, if so."""
        return self._saver.failure(session_id)

    def is_temporary(self, session_id: str) -> bool:
        """Whether a session lives in memory alone, and goes with the program."""
        return session_id in self._temporary

    def require_writable(self, session_id: str) -> None:
        """Take the lock of a session if it is not held here.

        Raises:
            SessionLocked: if another process writes it.
            SessionNewer: if a later quantchat wrote it.
        """
        # One that was opened read-only is stale by the time its lock is free: it must be opened anew.
        if self.why_read_only(session_id) is None and not self.is_temporary(session_id):
            self._owned.acquire(session_id)
        error = self.why_read_only(session_id)
        if error is not None:
            raise error

    def save(self, session: Session) -> None:
        """Write a session soon, on the background thread.

        Raises:
            SessionLocked: if another process writes it.
        """
        if session.id not in self._gone:
            self.require_writable(session.id)
            self._write(session)

    def _write(self, session: Session) -> None:
        if not self._is_unwritten(session.id):
            self._saver.write(session)

    def _is_unwritten(self, session_id: str) -> bool:
        """Whether nothing of a session goes to the disk; nor of one that was deleted while something was under way."""
        return self.is_temporary(session_id) or session_id in self._gone

    # Two programs

    def show(self, session_id: str) -> None:
        """Note which session the screen shows: others may write those before, once nothing is under way in them."""
        self._shown = session_id
        for held in self._owned.held:
            self._let_go(held)

    def _let_go(self, session_id: str) -> None:
        session = self._open.get(session_id)
        if session is None or self._shown in (None, session_id) or not self._owned.holds(session_id):
            return
        if self._saver.is_idle(session_id) and not session.queued:
            self._owned.release(session_id)
            self._stale.add(session_id)

    def settled(self, session_id: str) -> None:
        """Hear that a session is on the disk."""
        self._let_go(session_id)

    def hold(self, session_id: str) -> None:
        """Take the lock of a session that has unsaved changes; what is on the disk is merged as it is written.

        Raises:
            StorageError: if it cannot be written.
        """
        if not isinstance(self.why_read_only(session_id), SessionNewer):
            self._owned.acquire(session_id)
        error = self.why_read_only(session_id)
        if error is not None:
            raise error

    def check_lock(self, session_id: str) -> None:
        """Raise `SessionConflict` if the lock was lost: its file was deleted, or another machine took it."""
        if self._owned.was_lost(session_id):
            raise SessionConflict("The lock of this session is gone", "Its file is not the one that was made here")

    def reconcile(self, session: Session) -> None:
        """Merge what another program has written meanwhile into a session, and own its lock again.

        Raises:
            StorageError: if another program holds it, or it cannot be read.
        """
        if self._owned.was_lost(session.id):
            self._owned.release(session.id)
            self.hold(session.id)
        found = self._opener.read_again(session.id)
        if found is None:
            return
        theirs, stamp = found
        if self._saver.is_known(session.id, stamp):
            # Only the lock's file was gone. Merging would bring back what was deleted here.
            return
        merged = self._saver.merged(session, theirs)
        self._saver.known(theirs, stamp)
        if merged == session:
            # Our own words: the disk took them, and failed after that.
            return
        _replace(session, merged)
        told = ErrorReport(code="merged", title="Changes that another program made to this session were merged")
        self._tell(Notice(report=told, severity="information"))
        self._tell(SessionsChanged(), SessionChanged(session=session.id))

    @property
    def work(self) -> int:
        """Counts the changes that this program makes on the disk."""
        return self._saver.work

    def open_here(self, session_id: str) -> Session | None:
        """Return a session as it stands in memory, if it is open; nothing is read."""
        return self._open.get(session_id)

    def receive(self, session: Session) -> None:
        """Take a fresh state of a session that another program writes; draft and branch stay as they are read here."""
        held = self._open.get(session.id)
        if held is None or not self.why_read_only(session.id):
            return
        if held.id in self._turned and held.head in session.messages:
            session.head = held.head
        session.draft, session.draft_words = held.draft, held.draft_words
        _replace(held, session)

    def turn(self, session_id: str, message_id: str) -> None:
        """Show a branch through a message; of a session that another program writes, here alone."""
        session = self.open_here(session_id)
        if session is None or message_id not in session.messages:
            return
        head = session.head
        tree.show(session, message_id)
        if self.why_read_only(session_id) is not None:
            self._turned.add(session_id)
        elif session.head != head:
            self.save(session)

    def give_sign(self) -> None:
        """Tell other machines now and then that this program lives, where the file system has no locks."""
        for session_id, lock in self._owned.due_signs():
            self._saver.submit(session_id, lock.give_sign)

    @property
    def locks(self) -> SessionLocks:
        """The locks of the sessions."""
        return self._owned.locks

    def _tell(self, *facts: Fact) -> None:
        for fact in facts:
            self._listen(fact)

    def _tell_problems(self) -> None:
        for problem in self._store.take_problems():
            self._listen(Notice(report=problem, dialog=True))


def _replace(session: Session, by: Session) -> None:
    for field in Session.__struct_fields__:
        setattr(session, field, getattr(by, field))
