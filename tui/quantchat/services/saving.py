"""The thread that writes sessions: in order, tried again after a refusal, never over what another program wrote."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import msgspec

from quantchat.domain.chat import Message, Session
from quantchat.domain.merging import Traits, merge, traits
from quantchat.errors import SessionConflict, StorageError
from quantchat.services.facts import Listener, Notice, SessionChanged
from quantchat.store.sessions import SessionStore, Stamp, digest

if TYPE_CHECKING:
    from quantchat.store.journal import Journal

    Ended = tuple[Journal, Message]
    """The journal of an answer that ended, and the answer as it was then."""

RETRY_SECONDS = 3.0
MOST_CONFLICTS = 5
"""After so many in a row it is the disk that names one file differently each time, not another program."""


class Holder(Protocol):
    """Who opens the sessions and holds their locks."""

    def hold(self, session_id: str) -> None:
        """Take the lock if it is not held; raise `StorageError` if the session cannot be written."""

    def check_lock(self, session_id: str) -> None:
        """Raise `SessionConflict` if the lock was lost. Called on the thread that writes."""

    def reconcile(self, session: Session) -> None:
        """Merge what is on the disk into a session."""

    def settled(self, session_id: str) -> None:
        """Hear that a session is on the disk."""


class Saver:
    """Writes sessions on one background thread.

    A session that could not be written stays in memory, is said to be unsaved, and is tried again every few seconds.

    Attributes:
        work: Counts what was handed to the thread.
    """

    def __init__(self, store: SessionStore, listener: Listener, holder: Holder) -> None:
        self._store = store
        self._listen = listener
        self._holder = holder
        # Of the files that the sessions in memory were read from, or written to: what they are, and what they say.
        self._stamps: dict[str, Stamp] = {}
        self._bases: dict[str, Traits] = {}
        # What the disk refused, as digests: it may say so after it took the file, and the next refusal may come before.
        self._tried: dict[str, set[bytes]] = {}
        self._failed: dict[str, StorageError] = {}
        self._retrying: set[str] = set()
        self._kept: dict[str, list[Ended]] = {}
        self._streaming: set[str] = set()
        self._conflicts: Counter[str] = Counter()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sessions")
        self._pending: dict[Future[None], str] = {}
        self.work = 0

    # What is going on

    def failure(self, session_id: str) -> StorageError | None:
        """Return why the latest state of a session is not on disk, if so."""
        return self._failed.get(session_id)

    @property
    def failures(self) -> list[StorageError]:
        """Why sessions are not on disk."""
        return list(self._failed.values())

    def is_idle(self, session_id: str) -> bool:
        """Whether all of a session is on the disk and no answer of it is being written."""
        busy = session_id in self._failed or session_id in self._streaming or session_id in self._kept
        return not busy and session_id not in self._pending.values()

    # What is on the disk

    def known(self, session: Session, stamp: Stamp) -> None:
        """Note the state of a file: a session in memory comes from it."""
        self._stamps[session.id], self._bases[session.id] = stamp, traits(session)

    def is_known(self, session_id: str, stamp: Stamp) -> bool:
        """Whether a file is still the one that a session in memory was read from, or written to."""
        return self._stamps.get(session_id) == stamp

    def unlink(self, session_id: str) -> None:
        """Note that a session has no file."""
        self._stamps.pop(session_id, None)

    def merged(self, ours: Session, theirs: Session) -> Session:
        """Return a session with what was changed here and what was changed there, since it was the same."""
        return merge(ours, theirs, self._bases.get(ours.id))

    # Writing

    def begin(self, session_id: str, journal: Journal) -> None:
        """Start the journal of an answer, in the order of the writes: the one before it, of that name, is gone then."""
        self.work += 1
        self._streaming.add(session_id)
        self._writer.submit(journal.begin)

    def end(self, session: Session, answer: Message, journal: Journal | None) -> None:
        """Write a session with its complete answer, and only then drop the journal of that answer."""
        self._streaming.discard(session.id)
        if journal is not None:
            # A copy: the answer may go on before the disk has taken how it ended.
            self._kept.setdefault(session.id, []).append((journal, msgspec.structs.replace(answer)))
        self.write(session)

    def write(self, session: Session) -> None:
        """Write a session as it is now, soon."""
        try:
            data = self._store.encode(session)
        except StorageError as error:
            self._listen(Notice(report=error.report))
            return
        # Journals of one session share a file: those that ended stay until none of them streams.
        kept = [] if session.id in self._streaming else list(self._kept.get(session.id, ()))
        base = traits(session)

        def work() -> None:
            for journal, answer in kept:
                journal.close(answer.finish, answer.statistics)
            if data is not None:
                self._put(session.id, data)
                self._bases[session.id] = base
            for journal, _ in kept:
                journal.remove()

        self.submit(session.id, work, lambda future: self._written(session, kept, future))

    def _put(self, session_id: str, data: bytes) -> None:
        self._holder.check_lock(session_id)
        anything = self._conflicts[session_id] >= MOST_CONFLICTS or self._is_own(session_id)
        onto = None if anything else self._stamps.get(session_id, ())
        try:
            self._stamps[session_id] = self._store.write(session_id, data, onto=onto)
        except SessionConflict:
            raise
        except StorageError:
            self._tried.setdefault(session_id, set()).add(digest(data))
            raise
        self._tried.pop(session_id, None)

    def _is_own(self, session_id: str) -> bool:
        """Whether the disk took what it said that it did not take."""
        tried = self._tried.get(session_id)
        return tried is not None and self._store.digest(session_id) in tried

    def submit(
        self, session_id: str, work: Callable[[], None], then: Callable[[Future[None]], None] = lambda _: None
    ) -> Future[None]:
        """Do something with a session's file behind all that waits; `then` is called on the event loop."""
        self.work += 1
        future = self._writer.submit(work)
        self._pending[future] = session_id
        loop = asyncio.get_running_loop()

        def finish(done: Future[None]) -> None:
            self._pending.pop(done, None)
            then(done)

        def call_back(done: Future[None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, done)

        future.add_done_callback(call_back)
        return future

    def _written(self, session: Session, done: list[Ended], future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, SessionConflict):
            error = self._meet_conflict(session)
            if error is None:
                return
        if error is not None:
            failure = error if isinstance(error, StorageError) else StorageError("A session was not saved", str(error))
            self._fail(session, failure)
            return
        del self._conflicts[session.id]
        kept = [ended for ended in self._kept.pop(session.id, ()) if ended not in done]
        if kept:
            self._kept[session.id] = kept
        if self._failed.pop(session.id, None) is not None:
            self._listen(SessionChanged(session=session.id))
        self._holder.settled(session.id)

    def _meet_conflict(self, session: Session) -> StorageError | None:
        self._conflicts[session.id] += 1
        try:
            self._holder.reconcile(session)
        except StorageError as error:
            return error
        self.write(session)
        return None

    def _fail(self, session: Session, failure: StorageError) -> None:
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
        if session.id in self._failed:
            self.write_held(session)

    def write_held(self, session: Session) -> None:
        """Write a session whose lock may have to be taken first."""
        try:
            self._holder.hold(session.id)
        except StorageError as error:
            self._fail(session, error)
        else:
            self.write(session)

    # Leaving

    def forget(self, session_id: str) -> None:
        """Try a session no more."""
        for known in (self._failed, self._kept, self._stamps, self._bases, self._tried):
            known.pop(session_id, None)

    def forgive(self, session_id: str) -> None:
        """Forget that a session could not be written: its file is going away."""
        self._failed.pop(session_id, None)

    async def flush(self) -> None:
        """Wait until everything handed over is on disk, or has failed; what is handed over meanwhile too."""
        while self._pending:
            for future in list(self._pending):
                await asyncio.to_thread(future.exception)
            # The callbacks of what ended run now; a conflict that was met has put another write in the queue.
            await asyncio.sleep(0)

    def close(self) -> None:
        """Take no more; what is under way goes on to its end."""
        self._writer.shutdown(wait=False)
