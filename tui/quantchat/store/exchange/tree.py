"""quantchat's own JSON: a session with its whole tree, as the sessions folder has it, without what is private."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from quantchat.domain.chat import SCHEMA, Message, Session
from quantchat.store.exchange.stamps import within
from quantchat.store.recovery import settle
from quantchat.store.schema import UPGRADES, encode_session, upgrade


class NotATree(ValueError):
    """A session that contradicts itself; the text says how."""


def shareable(session: Session) -> Session:
    """Return a session without drafts, waiting prompts, and what was deleted."""
    return msgspec.structs.replace(session, draft="", draft_words="", queued=[], edits={}, deleted=[])


def write_tree(session: Session) -> str:
    """Return the file of a session."""
    return encode_session(shareable(session)).decode()


def read_tree(value: Mapping[str, Any]) -> Session:
    """Read a session of any version up to this one's.

    Raises:
        NotATree: if it is of a later version, or its messages are no tree.
        msgspec.ValidationError: if something in it has the wrong type.
    """
    version = value.get("version", 1)
    if not isinstance(version, int) or version < 1:
        raise NotATree(f"there is no schema {str(version)[:20]}")
    if version > SCHEMA:
        raise NotATree(f"a later quantchat wrote it (schema {version}, this one reads up to {SCHEMA})")
    content = dict(value)
    session = msgspec.convert(upgrade(content, schema=SCHEMA, upgrades=UPGRADES), Session)
    check_tree(session)
    settle(session)
    _bound_times(session)
    return session


def check_tree(session: Session) -> None:
    """Make sure that each message is found under its own id and leads up to a first one.

    Raises:
        NotATree: if one does not; the text names it.
    """
    for key, message in session.messages.items():
        if key != message.id:
            raise NotATree(f"message {key[:40]!r} calls itself {message.id[:40]!r}")
        if message.parent is not None and message.parent not in session.messages:
            raise NotATree(f"message {key[:40]!r} follows {message.parent[:40]!r}, which is not there")
    _require_roots(session.messages)
    if session.head not in session.messages:
        session.head = next(reversed(session.messages), None)


def _require_roots(messages: Mapping[str, Message]) -> None:
    grounded: set[str] = set()
    for start in messages:
        way: dict[str, None] = {}
        here: str | None = start
        while here is not None and here not in grounded:
            if here in way:
                raise NotATree(f"message {here[:40]!r} follows itself")
            way[here] = None
            here = messages[here].parent
        grounded.update(way)


def _bound_times(session: Session) -> None:
    session.created, session.updated = within(session.created), within(session.updated)
    for message in session.messages.values():
        message.created = within(message.created)
