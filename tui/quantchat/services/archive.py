"""The sessions that are open here, and the thread that writes them.

Sessions are owned by the event loop. A save encodes on the loop, so that what is written is one consistent moment, and
writes and syncs on one background thread, in order; the screen never waits for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.chat import Message, Session, SessionSummary
from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import SessionLocked, StorageError
from quantchat.services.facts import Fact, Listener, Notice, SessionChanged, SessionsChanged
from quantchat.store.locks import SessionLock, SessionLocks
from quantchat.store.sessions import SessionStore

if TYPE_CHECKING:
    from quantchat.store.journal import Journal
    from quantchat.store.recovery import Recovered

    Ended = tuple[Journal, Message]
    """The journal of an answer that ended, and the answer as it was then."""

RETRY_SECONDS = 3.0


class Archive:
    """Opens, keeps and saves sessions.

    A session that could not be written stays in memory, is said to be unsaved, and is tried again every few seconds.
    """

    def __init__(self, listener: Listener, store: SessionStore | None = None) -> None:
        self._listen = listener
        self._store = store or SessionStore()
        self._session_locks = SessionLocks(self._store.root)
        self._open: dict[str, Session] = {}
        self._locks: dict[str, SessionLock] = {}
        self._read_only: dict[str, StorageError] = {}
        self._failed: dict[str, StorageError] = {}
        self._retrying: set[str] = set()
        self._kept: dict[str, list[Ended]] = {}
        self._streaming: set[str] = set()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sessions")
        self._pending: set[Future[None]] = set()

    async def recover(self) -> list[Recovered]:
        """Fold in what a crash left behind; sessions of other running programs are left alone."""
        from quantchat.store.recovery import recover

        recovered = await asyncio.to_thread(recover, self._store, self._session_locks)
        self._tell_problems()
        return recovered

    async def summaries(self) -> list[SessionSummary]:
        """Return the sessions on disk and the unsaved ones, newest first."""
        stored = {summary.id: summary for summary in await asyncio.to_thread(self._store.list)}
        self._tell_problems()
        for session in self._open.values():
            if session.id in stored or session.messages or session.queued:
                stored[session.id] = SessionSummary.of(session)
        return sorted(stored.values(), key=lambda summary: (summary.updated, summary.id), reverse=True)

    def _tell_problems(self) -> None:
        for problem in self._store.take_problems():
            self._listen(Notice(report=problem, dialog=True))

    def new(self) -> Session:
        """Start a session; it is written once it holds something."""
        session = Session.new()
        self._open[session.id] = session
        return session

    def open(self, session_id: str) -> Session:
        """Return a session, reading it from disk the first time; a read-only one each time, for it may be free now.

        It is the same object each time; what was read anew replaces its contents.

        Raises:
            SessionUnreadable: if the file does not parse; it is in quarantine then.
            StorageError: if it cannot be read.
        """
        from quantchat.store.recovery import fold_journal, settle

        if session_id in self._open and self.why_read_only(session_id) is None:
            return self._open[session_id]
        self._acquire(session_id)
        try:
            if session_id not in self._read_only:
                fold_journal(self._store, session_id)
            session = self._store.load(session_id)
        except StorageError:
            self._release(session_id)
            raise
        if session_id not in self._read_only:
            settle(session)
            session.restore_queued()
        held = self._open.setdefault(session_id, session)
        # Who shows it must not be left with a stale one, which the next save would write over all that came since.
        for field in Session.__struct_fields__:
            setattr(held, field, getattr(session, field))
        return held

    def _acquire(self, session_id: str) -> None:
        if session_id in self._locks:
            return
        try:
            self._locks[session_id] = self._session_locks.acquire(session_id)
            self._read_only.pop(session_id, None)
        except StorageError as error:
            self._read_only[session_id] = error

    def _release(self, session_id: str) -> None:
        self._read_only.pop(session_id, None)
        lock = self._locks.pop(session_id, None)
        if lock is not None:
            lock.release()

    @property
    def store(self) -> SessionStore:
        """Where the sessions are kept."""
        return self._store

    def opened(self) -> list[Session]:
        """Return the sessions that are open here and hold something, unless another process writes them."""
        own = (session for session in self._open.values() if self.why_read_only(session.id) is None)
        return [session for session in own if session.messages or session.queued or session.draft]

    def why_read_only(self, session_id: str) -> StorageError | None:
        """Return why a session cannot be written from here, if so."""
        error = self._read_only.get(session_id)
        return error if isinstance(error, SessionLocked) else None

    def unsaved(self, session_id: str) -> StorageError | None:
        """Return why the latest state of a session is not on disk, if so."""
        return self._failed.get(session_id)

    def journal(self, session: Session, message: Message) -> Journal:
        """Start the journal of a streaming answer; to be ended by `finish`.

        Raises:
            SessionLocked: if another process writes the session.
        """
        from quantchat.store.journal import Journal

        self.require_writable(session.id)
        journal = Journal(self._store.journal_path(session.id), message, begin=False)
        # In the order of the writes: the journal of the answer before it, which has the same name, is gone by then.
        self._writer.submit(journal.begin)
        self._streaming.add(session.id)
        return journal

    def require_writable(self, session_id: str) -> None:
        """Take the lock of a session if it is not held here.

        Raises:
            SessionLocked: if another process writes it.
        """
        # One that was opened read-only is stale by the time its lock is free: it must be opened anew.
        if self.why_read_only(session_id) is None:
            self._acquire(session_id)
        error = self.why_read_only(session_id)
        if error is not None:
            raise error

    def save(self, session: Session) -> None:
        """Write a session soon, on the background thread.

        Raises:
            SessionLocked: if another process writes it.
        """
        self.require_writable(session.id)
        self._write(session)

    def drop_empty(self, session: Session) -> None:
        """Take a session that holds nothing any more from the disk, to the trash; it stays open here."""
        if self.why_read_only(session.id) is not None:
            return
        self._failed.pop(session.id, None)
        # One that was never written has no file, which is as well.
        self._writer.submit(self._store.delete, session.id)

    def finish(self, session: Session, answer: Message, journal: Journal | None) -> None:
        """Write a session with its complete answer, and only then drop the journal of that answer."""
        self._streaming.discard(session.id)
        if journal is not None:
            # A copy: the answer may go on before the disk has taken how it ended.
            self._kept.setdefault(session.id, []).append((journal, msgspec.structs.replace(answer)))
        self._write(session)

    def _write(self, session: Session) -> None:
        try:
            data = self._store.encode(session)
        except StorageError as error:
            self._listen(Notice(report=error.report))
            return
        # Journals of one session share a file: those that ended stay until none of them streams.
        kept = [] if session.id in self._streaming else list(self._kept.get(session.id, ()))

        def work() -> None:
            for journal, answer in kept:
                journal.close(answer.finish, answer.statistics)
            if data is not None:
                self._store.write(session.id, data)
            for journal, _ in kept:
                journal.remove()

        future = self._writer.submit(work)
        self._pending.add(future)
        loop = asyncio.get_running_loop()

        def done(finished: Future[None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._written, session, kept, finished)

        future.add_done_callback(done)

    def _written(self, session: Session, done: list[Ended], future: Future[None]) -> None:
        self._pending.discard(future)
        error = future.exception()
        if error is None:
            kept = [ended for ended in self._kept.pop(session.id, ()) if ended not in done]
            if kept:
                self._kept[session.id] = kept
            if self._failed.pop(session.id, None) is not None:
                self._listen(SessionChanged(session=session.id))
            return
        failure = error if isinstance(error, StorageError) else StorageError("A session was not saved", str(error))
        first = session.id not in self._failed
        self._failed[session.id] = failure
        if first:
            self._listen(Notice(report=failure.report))
            self._listen(SessionChanged(session=session.id))
        if session.id not in self._retrying:
            self._retrying.add(session.id)
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._retry, session)

    def _retry(self, session: Session) -> None:
        self._retrying.discard(session.id)
        if session.id in self._failed and session.id in self._open:
            self._write(session)

    def rename(self, session_id: str, title: str) -> None:
        """Give a session a title."""
        session = self.open(session_id)
        if words := " ".join(title.split()):
            session.title, session.named_by = words, "user"
        self.save(session)
        self._tell(SessionsChanged(), SessionChanged(session=session_id))

    def use_preset(self, session_id: str, name: str, sampling: SamplingOverrides) -> None:
        """Give a session a preset's sampling, and its name to show; a session without messages is not written yet.

        Raises:
            SessionLocked: if another process writes it.
        """
        session = self.open(session_id)
        self.require_writable(session_id)
        session.preset, session.sampling = name, sampling
        if session.messages or session.queued:
            self.save(session)
        self._tell(SessionChanged(session=session_id))

    async def delete(self, session_id: str) -> None:
        """Move a session to the trash folder.

        Raises:
            SessionLocked: if another process writes it.
        """
        self.require_writable(session_id)
        self._failed.pop(session_id, None)
        try:
            # On the writer's thread: a write that waits there would bring the file back.
            await asyncio.wrap_future(self._writer.submit(self._store.delete, session_id))
        except StorageError as error:
            # A session that was never written has no file to move.
            if error.report.code != "session-missing":
                raise
        for kept in (self._open, self._failed, self._kept):
            kept.pop(session_id, None)
        self._release(session_id)
        self._tell(SessionsChanged())

    def _tell(self, *facts: Fact) -> None:
        for fact in facts:
            self._listen(fact)

    async def flush(self) -> None:
        """Wait until everything handed to the background thread is on disk, or has failed."""
        pending: list[Callable[[], object]] = [future.exception for future in self._pending]
        for wait in pending:
            await asyncio.to_thread(wait)
        await asyncio.sleep(0)

    async def close(self) -> list[StorageError]:
        """Write what is unsaved once more, wait for the disk, release all locks; return what is still not written."""
        await self.flush()
        for session_id in list(self._failed):
            if session_id in self._open:
                self._write(self._open[session_id])
        await self.flush()
        self._writer.shutdown(wait=False)
        for session_id in list(self._locks):
            self._release(session_id)
        return list(self._failed.values())
