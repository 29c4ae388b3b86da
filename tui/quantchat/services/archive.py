"""The sessions of a program: begun, read, changed, written, deleted.

Sessions are owned by the event loop. A save encodes on the loop, so that what is written is one consistent moment;
`Saver` writes and syncs on one background thread, in order. The screen never waits for the disk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.chat import Message, Session, SessionSummary, new_id
from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import SessionLocked, SessionNewer, StorageError
from quantchat.services.facts import Listener, SessionChanged, SessionsChanged
from quantchat.services.listing import Listing
from quantchat.services.opened import OpenSessions
from quantchat.store.sessions import SessionStore

if TYPE_CHECKING:
    from quantchat.services.amending import Change
    from quantchat.store.journal import Journal
    from quantchat.store.recovery import Recovered


class Archive(OpenSessions):
    """Opens, keeps and saves sessions.

    A session that could not be written stays in memory, is said to be unsaved, and is tried again every few seconds.
    """

    def __init__(self, listener: Listener, store: SessionStore | None = None) -> None:
        super().__init__(listener, store)
        self.listing = Listing(self._store, listener)

    async def recover(self) -> list[Recovered]:
        """Fold in what a crash left behind; sessions of other running programs are left alone."""
        from quantchat.store.recovery import recover

        recovered = await asyncio.to_thread(recover, self._store, self._owned.locks)
        self._tell_problems()
        return recovered

    async def summaries(self) -> list[SessionSummary]:
        """Return the sessions on disk and the unsaved ones, newest first; see `Listing.rows`."""
        stored = {summary.id: summary for summary in await self.listing.rows() if summary.id not in self._going}
        self._tell_problems()
        for session in self._open.values():
            if self._is_foreign(session.id) or session.id in self._going:
                continue
            temporary = self.is_temporary(session.id)
            only_here = temporary and not self.is_bare(session)
            if session.id in stored or session.messages or session.queued or only_here:
                stored[session.id] = msgspec.structs.replace(SessionSummary.of(session), temporary=temporary)
        return sorted(stored.values(), key=lambda summary: (summary.updated, summary.id), reverse=True)

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

    def journal(self, session: Session, message: Message) -> Journal | None:
        """Start the journal of a streaming answer, to be ended by `finish`; None if nothing of its session is written.

        Raises:
            SessionLocked: if another process writes the session.
        """
        from quantchat.store.journal import Journal

        if self._is_unwritten(session.id):
            return None
        self.require_writable(session.id)
        question = session.messages.get(message.parent or "")
        journal = Journal(self._store.journal_path(session.id), message, question=question, begin=False)
        self._saver.begin(session.id, journal)
        return journal

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
        closed = session_id not in self._open or (session_id in self._stale and self._saver.is_idle(session_id))
        if closed and await self._amend_stored(session_id, change):
            return
        self.require_writable(session_id)
        session = self._open[session_id]
        change(session)
        self.save(session)
        self._tell(SessionChanged(session=session_id))

    async def _amend_stored(self, session_id: str, change: Change) -> bool:
        """Change a session that is not open here; false if it was opened while this waited for the disk."""
        from quantchat.services.amending import amend_stored

        # On the writer's thread, as a deletion that was asked for before it.
        work = self._saver.submit(session_id, lambda: amend_stored(self._store, self._owned.locks, session_id, change))
        try:
            await asyncio.wrap_future(work)
        except SessionLocked:
            if session_id not in self._open or not self._owned.holds(session_id):
                raise
            return False
        return True

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
        self._going.add(session_id)
        try:
            # On the writer's thread: a write that waits there would bring the file back.
            if not self.is_temporary(session_id):
                await asyncio.wrap_future(self._saver.submit(session_id, lambda: self._store.delete(session_id)))
        except StorageError as error:
            # A session that was never written has no file to move.
            if error.report.code != "session-missing":
                self._stay(session_id)
                raise
        finally:
            self._going.discard(session_id)
        self._open.pop(session_id, None)
        self._saver.forget(session_id)
        self._stale.discard(session_id)
        self._temporary.discard(session_id)
        self._owned.release(session_id)
        self._tell(SessionsChanged())

    def _stay(self, session_id: str) -> None:
        """Go on with a session that could not be deleted, and write what came meanwhile."""
        self._gone.discard(session_id)
        session = self._open.get(session_id)
        if session is None:
            self._owned.release(session_id)
        elif session_id not in self._stale:
            self._write(session)

    async def flush(self) -> None:
        """Wait until everything handed to the background thread is on disk, or has failed."""
        await self._saver.flush()

    async def close(self) -> list[StorageError]:
        """Write what is unsaved once more, wait for the disk, release all locks; return what is still not written.

        What must not be written over another program's state is kept as a session of its own.
        """
        await self.flush()
        for session in self._open.values():
            if self.unsaved(session.id) is not None:
                self._saver.write_held(session)
        await self.flush()
        for session in list(self._open.values()):
            if isinstance(self.unsaved(session.id), SessionLocked | SessionNewer):
                self._keep_apart(session)
        await self.flush()
        self._saver.close()
        self._owned.release_all()
        return self._saver.failures

    def _keep_apart(self, session: Session) -> None:
        copy = msgspec.structs.replace(session, id=new_id(), title=f"Not saved: {session.title}", named_by="user")
        self._saver.forgive(session.id)
        self._saver.write(copy)
