"""Following a session that another program writes: what is on the disk is shown here a moment later.

The file and the journal are looked at a few times each second, on a thread of their own. As soon as nobody holds the
session any more, the screen is told, and may take it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from quantchat.domain.chat import Message, Session
from quantchat.domain.thinking import Channel
from quantchat.errors import SessionLocked, StorageError
from quantchat.services.archive import Archive
from quantchat.services.background import in_background
from quantchat.services.facts import Listener, SessionChanged, SessionsChanged, TextArrived
from quantchat.store.sessions import Stamp, stamp_of

LOOK_SECONDS = 0.2


class Glimpse(msgspec.Struct, frozen=True):
    """What one look found.

    Attributes:
        stamps: Of the file and of the journal.
        session: The session as it is there, if it changed since the last look.
        free: Whether nobody holds it any more.
    """

    stamps: tuple[Stamp, Stamp]
    session: Session | None = None
    free: bool = False


class Follower:
    """Follows the session that the screen shows, while it can only be read.

    Attributes:
        on_free: Called with its id when nobody writes it any more.
    """

    def __init__(self, archive: Archive, listener: Listener) -> None:
        self._archive = archive
        self._listen = listener
        self._shown: str | None = None
        self._stamps: tuple[Stamp, Stamp] | None = None
        self._folder: Stamp | None = None
        self._work = 0
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.on_free: Callable[[str], object] = lambda _: None

    def show(self, session_id: str) -> None:
        """Follow this session from now on, if it is one to follow."""
        self._archive.show(session_id)
        self._shown, self._stamps = session_id, None
        self._begin()

    def look(self) -> None:
        """Look about once a second: whether the session on the screen is to be followed, and for changed lists."""
        self._archive.give_sign()
        self._begin()
        # A disk that hangs holds up nothing but the next look at it.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_at_list())

    def close(self) -> None:
        """Follow nothing any more."""
        self._shown = None
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()

    def _begin(self) -> None:
        running = self._task is not None and not self._task.done()
        if not running and self._followed is not None:
            self._task = asyncio.create_task(self._follow())

    @property
    def _followed(self) -> str | None:
        shown = self._shown
        return shown if shown is not None and self._archive.why_read_only(shown) is not None else None

    async def _follow(self) -> None:
        while (session_id := self._followed) is not None:
            before = self._stamps
            found = await in_background(self._glimpse, session_id, before)
            # Another session may be shown by now, or this one opened anew.
            if session_id == self._followed and before is self._stamps:
                self._stamps = found.stamps
                self._take(session_id, found)
            await asyncio.sleep(LOOK_SECONDS)

    def _glimpse(self, session_id: str, before: tuple[Stamp, Stamp] | None) -> Glimpse:
        """Look at the disk; on a thread."""
        store, locks = self._archive.store, self._archive.locks
        # Asked before reading: what its holder wrote last is there once it is free.
        locked = isinstance(self._archive.why_read_only(session_id), SessionLocked)
        free = locked and not locks.is_locked(session_id)
        paths = store.journal_path(session_id), store.path(session_id)
        stamps = _stamp(paths[0]), _stamp(paths[1])
        if stamps == before or not stamps[1]:
            return Glimpse(stamps, free=free and bool(stamps[1]))
        try:
            return Glimpse(stamps, session=self._read(session_id), free=free)
        except StorageError:
            return Glimpse(stamps)

    def _read(self, session_id: str) -> Session:
        from quantchat.store.journal import replay_whole
        from quantchat.store.recovery import overlay_answers

        store = self._archive.store
        # The journal first: it goes when what it says is in the file.
        try:
            answers = replay_whole(store.journal_path(session_id))
        except OSError:
            answers = ()
        session = store.load(session_id)
        overlay_answers(session, answers, running=True)
        return session

    def _take(self, session_id: str, found: Glimpse) -> None:
        if found.session is not None:
            self._show_fresh(found.session)
        if found.free:
            self.on_free(session_id)

    def _show_fresh(self, session: Session) -> None:
        held = self._archive.open_here(session.id)
        if held is None:
            return
        before = {name: (message.text, message.thinking) for name, message in held.messages.items() if _runs(message)}
        grown = [message for message in session.messages.values() if message.id in before and _runs(message)]
        shape = _shape(held)
        self._archive.receive(session)
        for message in grown:
            self._tell_growth(session.id, message, *before[message.id])
        if shape != _shape(session):
            self._listen(SessionChanged(session=session.id))

    def _tell_growth(self, session_id: str, message: Message, text: str, thinking: str) -> None:
        said: tuple[tuple[Channel, str, str], ...] = (
            ("thinking", thinking, message.thinking),
            ("answer", text, message.text),
        )
        for channel, old, new in said:
            if len(new) > len(old) and new.startswith(old):
                fact = TextArrived(session=session_id, message=message.id, text=new[len(old) :], channel=channel)
                self._listen(fact)

    async def _look_at_list(self) -> None:
        """Have the list read anew when another program made, replaced or deleted a file; what this one did is known."""
        folder = await in_background(_stamp, self._archive.store.root)
        before, self._folder = self._folder, folder
        work, self._work = self._work, self._archive.work
        if before is not None and before != folder and work == self._work:
            self._listen(SessionsChanged())


def _runs(message: Message) -> bool:
    return message.role == "assistant" and message.finish is None


def _shape(session: Session) -> tuple[object, ...]:
    """What is drawn of a session, but for the text of answers that are being written."""
    messages = [(m.id, m.finish, "" if _runs(m) else m.text) for m in session.messages.values()]
    return session.title, session.head, tuple(session.queued), session.preset, messages


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(path)
    except OSError:
        return ()
