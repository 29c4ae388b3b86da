"""The sessions that are open here: who may write them, and when they are read anew.

Sessions are owned by the event loop. A save encodes on the loop, so that what is written is one consistent moment;
`Saver` writes and syncs on one background thread, in order. The screen never waits for the disk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain import tree
from quantchat.domain.chat import Message, Session, SessionSummary
from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import ErrorReport, SessionConflict, SessionNewer, StorageError
from quantchat.services.amending import Change, amend_stored
from quantchat.services.facts import Fact, Listener, Notice, SessionChanged, SessionsChanged
from quantchat.services.listing import Listing
from quantchat.services.opening import Opener
from quantchat.services.ownership import Ownership
from quantchat.services.saving import Saver
from quantchat.store.locks import SessionLocks
from quantchat.store.sessions import SessionStore

if TYPE_CHECKING:
    from quantchat.store.journal import Journal
    from quantchat.store.recovery import Recovered


class Archive:
    """Opens, keeps and saves sessions.

    A session that could not be written stays in memory, is said to be unsaved, and is tried again every few seconds.
    One that another program has changed meanwhile is merged with what was changed here, so that nothing is lost.
    """

    def __init__(self, listener: Listener, store: SessionStore | None = None) -> None:
        self._listen = listener
        self._store = store or SessionStore()
        self.listing = Listing(self._store, listener)
        self._owned = Ownership(SessionLocks(self._store.root))
        self._open: dict[str, Session] = {}
        self._temporary: set[str] = set()
        self._shown: str | None = None
        self._stale: set[str] = set()
        self._gone: set[str] = set()
        self._turned: set[str] = set()
        self._opener = Opener(self._store, self._owned)
        self._saver = Saver(self._store, listener, self)

    async def recover(self) -> list[Recovered]:
        """Fold in what a crash left behind; sessions of other running programs are left alone."""
        from quantchat.store.recovery import recover

        recovered = await asyncio.to_thread(recover, self._store, self._owned.locks)
        self._tell_problems()
        return recovered

    async def summaries(self) -> list[SessionSummary]:
        """Return the sessions on disk and the unsaved ones, newest first; see `Listing.rows`."""
        stored = {summary.id: summary for summary in await self.listing.rows()}
        self._tell_problems()
        for session in self._open.values():
            if self._is_foreign(session.id):
                continue
            if session.id in stored or session.messages or session.queued:
                temporary = self.is_temporary(session.id)
                stored[session.id] = msgspec.structs.replace(SessionSummary.of(session), temporary=temporary)
        return sorted(stored.values(), key=lambda summary: (summary.updated, summary.id), reverse=True)

    def _tell_problems(self) -> None:
        for problem in self._store.take_problems():
            self._listen(Notice(report=problem, dialog=True))

    def new(self, *, temporary: bool = False) -> Session:
        """Start a session; it is written once it holds something, a temporary one never."""
        session = Session.new()
        session.system_prompt = self._store.assumed_prompt
        self._open[session.id] = session
        if temporary:
            self._temporary.add(session.id)
        return session

    def adopt(self, session: Session) -> Session:
        """Take in a session that was made elsewhere, such as a fork; it is written once it is saved."""
        self._open[session.id] = session
        if session.origin is not None and self.is_temporary(session.origin.session):
            self._temporary.add(session.id)
        return session

    def is_temporary(self, session_id: str) -> bool:
        """Whether a session lives in memory alone, and goes with the program."""
        return session_id in self._temporary

    def keep(self, session_id: str) -> None:
        """Make a temporary session one that is kept, from now on.

        Raises:
            StorageError: if its lock cannot be taken; it stays temporary then.
        """
        self._temporary.discard(session_id)
        try:
            self.require_writable(session_id)
        except StorageError:
            self._temporary.add(session_id)
            raise
        self._write(self._open[session_id])
        self._tell(SessionsChanged(), SessionChanged(session=session_id))

    def is_bare(self, session: Session) -> bool:
        """Whether nobody wrote anything into a session."""
        return not self._store.has_content(session)

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

    def journal(self, session: Session, message: Message) -> Journal | None:
        """Start the journal of a streaming answer, to be ended by `finish`; None for a temporary session.

        Raises:
            SessionLocked: if another process writes the session.
        """
        from quantchat.store.journal import Journal

        if self.is_temporary(session.id):
            return None
        self.require_writable(session.id)
        question = session.messages.get(message.parent or "")
        journal = Journal(self._store.journal_path(session.id), message, question=question, begin=False)
        self._saver.begin(session.id, journal)
        return journal

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

    def drop_empty(self, session: Session) -> None:
        """Take a session that holds nothing any more from the disk, to the trash; it stays open here."""
        if self.why_read_only(session.id) is not None or self.is_temporary(session.id):
            return
        self._saver.forgive(session.id)

        def drop() -> None:
            self._store.delete(session.id)
            self._saver.unlink(session.id)

        # One that was never written has no file, which is as well; one that cannot be moved stays.
        self._saver.submit(session.id, drop)

    def finish(self, session: Session, answer: Message, journal: Journal | None) -> None:
        """Write a session with its complete answer, and only then drop the journal of that answer."""
        if not self._is_unwritten(session.id):
            self._saver.end(session, answer, journal)
        elif journal is not None:
            self._saver.submit(session.id, journal.remove)

    def _write(self, session: Session) -> None:
        if not self._is_unwritten(session.id):
            self._saver.write(session)

    def _is_unwritten(self, session_id: str) -> bool:
        """Whether nothing of a session goes to the disk; nor of one that was deleted while something was under way."""
        return self.is_temporary(session_id) or session_id in self._gone

    # Two programs

    def show(self, session_id: str) -> None:
        """Note which session the screen shows: others may write the one before, once nothing is under way in it."""
        before, self._shown = self._shown, session_id
        if before is not None and before != session_id:
            self._let_go(before)

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

    # Changes

    def rename(self, session_id: str, title: str) -> None:
        """Give a session a title."""
        session = self.open(session_id)
        if words := " ".join(title.split()):
            session.title, session.named_by = words, "user"
        self.save(session)
        self._tell(SessionsChanged(), SessionChanged(session=session_id))

    async def amend(self, session_id: str, change: Change) -> None:
        """Change a session and write it; one that is not open here stays so.

        Raises:
            SessionLocked: if another process writes it.
            StorageError: if one that is not open cannot be read or written.
        """
        session = self._open.get(session_id)
        if session is None or (session_id in self._stale and self._saver.is_idle(session_id)):
            # On the writer's thread, as a deletion that was asked for before it.
            work = self._saver.submit(
                session_id, lambda: amend_stored(self._store, self._owned.locks, session_id, change)
            )
            await asyncio.wrap_future(work)
            return
        self.require_writable(session_id)
        change(session)
        self.save(session)
        self._tell(SessionChanged(session=session_id))

    def use_preset(self, session_id: str, name: str, sampling: SamplingOverrides) -> None:
        """Give a session a preset's sampling, and its name to show; a session without messages is not written yet.

        Raises:
            SessionLocked: if another process writes it.
        """
        self.configure(session_id, preset=name, sampling=sampling)

    def configure(
        self,
        session_id: str,
        *,
        preset: str | None = None,
        sampling: SamplingOverrides | None = None,
        system_prompt: str | None = None,
        template: str | None = None,
    ) -> None:
        """Change what the next answers of a session are asked with; one in which nobody wrote is not written yet.

        Raises:
            SessionLocked: if another process writes it.
        """
        session = self.open(session_id)
        self.require_writable(session_id)
        wanted = {"preset": preset, "sampling": sampling, "system_prompt": system_prompt, "template": template}
        was_bare = self.is_bare(session)
        for name, value in wanted.items():
            if value is not None:
                setattr(session, name, value)
        if not self.is_bare(session):
            self.save(session)
        elif not was_bare:
            self.drop_empty(session)
        self._tell(SessionChanged(session=session_id))

    async def delete(self, session_id: str) -> None:
        """Move a session to the trash folder.

        Raises:
            SessionLocked: if another process writes it.
        """
        self.require_writable(session_id)
        self._saver.forgive(session_id)
        self._gone.add(session_id)
        try:
            # On the writer's thread: a write that waits there would bring the file back.
            if not self.is_temporary(session_id):
                await asyncio.wrap_future(self._saver.submit(session_id, lambda: self._store.delete(session_id)))
        except StorageError as error:
            # A session that was never written has no file to move.
            if error.report.code != "session-missing":
                self._gone.discard(session_id)
                raise
        self._open.pop(session_id, None)
        self._saver.forget(session_id)
        self._stale.discard(session_id)
        self._temporary.discard(session_id)
        self._owned.release(session_id)
        self._tell(SessionsChanged())

    def _tell(self, *facts: Fact) -> None:
        for fact in facts:
            self._listen(fact)

    async def flush(self) -> None:
        """Wait until everything handed to the background thread is on disk, or has failed."""
        await self._saver.flush()

    async def close(self) -> list[StorageError]:
        """Write what is unsaved once more, wait for the disk, release all locks; return what is still not written."""
        await self.flush()
        for session in self._open.values():
            if self.unsaved(session.id) is not None:
                self._saver.write_held(session)
        await self.flush()
        self._saver.close()
        self._owned.release_all()
        return self._saver.failures


def _replace(session: Session, by: Session) -> None:
    for field in Session.__struct_fields__:
        setattr(session, field, getattr(by, field))
