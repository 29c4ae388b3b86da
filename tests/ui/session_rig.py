"""Homes with sessions in them, for the tests of the list and the search."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quantchat.domain.chat import Message, Session, new_id
from quantchat.store.sessions import SessionStore
from quantchat.ui.widgets.sessions import SessionList
from ui.rig import Rig

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_session(title: str, number: int = 0, said: Sequence[str] = (), **fields: object) -> Session:
    """A session of so many messages, from the user and a model in turn, an hour later than the number before."""
    when = START + timedelta(hours=number)
    session = Session(id=new_id(when), title=title, created=when, updated=when, named_by="user")
    for place, text in enumerate(said):
        message = Message(
            id=new_id(when + timedelta(seconds=place)),
            role="assistant" if place % 2 else "user",
            text=text,
            created=when,
            parent=session.head,
            finish="stop" if place % 2 else None,
        )
        session.messages[message.id] = message
        session.head = message.id
    for name, value in fields.items():
        setattr(session, name, value)
    return session


def keep(folder: Path, *sessions: Session) -> list[Session]:
    """Write sessions into the home below a folder."""
    store = SessionStore(folder / "home" / "data" / "sessions")
    for session in sessions:
        store.save(session)
    return list(sessions)


def stored(folder: Path, session: Session) -> Session:
    """A session as it is on the disk now."""
    return SessionStore(folder / "home" / "data" / "sessions").load(session.id)


def titles(rig: Rig) -> list[str]:
    """The rows that are shown."""
    return [row.name for row in rig.chat.query_one(SessionList).rows]


async def in_list(rig: Rig, count: int) -> SessionList:
    """Wait for so many sessions, and go to their list."""
    await rig.until(lambda: len(rig.chat.summaries) == count, "sessions")
    await rig.pilot.press("f3")
    rows = rig.chat.query_one(SessionList)
    await rig.until(lambda: rows.has_focus and rows.size.height, "the list")
    return rows


def drawn(rows: SessionList) -> list[str]:
    """The lines of a list as they are on the screen."""
    return [rows.render_line(y).text.rstrip() for y in range(rows.size.height)]
