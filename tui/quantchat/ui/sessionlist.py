"""The list of sessions as the sidebar shows it: filtered, sorted, the pinned ones on top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from quantchat.domain.chat import SessionSummary
from quantchat.domain.text import clean
from quantchat.engine.protocol import WarmSession
from quantchat.store.state import SessionsOrder
from quantchat.ui.widgets.rows import Row

ORDERS: tuple[SessionsOrder, ...] = get_args(SessionsOrder)
ORDER_WORDS: Mapping[SessionsOrder, str] = {
    "changed": "last changed first",
    "created": "newest first",
    "title": "by title",
    "messages": "longest first",
}
DATED_DAYS = 300
"""A day so long ago is named with its year."""
WARM_WORDS = {"device": "warm", "host": "parked"}
_KEYS: Mapping[SessionsOrder, Callable[[SessionSummary], Any]] = {
    "changed": lambda row: (row.updated, row.id),
    "created": lambda row: (row.created, row.id),
    "title": lambda row: (row.title.casefold(), row.id),
    "messages": lambda row: (row.messages, row.updated),
}


@dataclass(frozen=True)
class Wanted:
    """What the user wants to see of the sessions, and in which order.

    Attributes:
        words: What was typed; a session is shown if all of them occur in its title or, behind a `#`, its tags.
        archived: Whether archived sessions are shown, and only those.
    """

    order: SessionsOrder = "changed"
    words: str = ""
    archived: bool = False


@dataclass(frozen=True)
class SessionStates:
    """What is going on in sessions: those that are being answered, were answered unseen, are kept warm."""

    streaming: Set[str] = frozenset()
    unread: Set[str] = frozenset()
    warm: Mapping[str, WarmSession] = field(default_factory=dict)


def arranged(sessions: Iterable[SessionSummary], order: SessionsOrder = "changed") -> list[SessionSummary]:
    """Sort sessions, the pinned ones on top."""
    found = sorted(sessions, key=_KEYS[order], reverse=order != "title")
    return [row for row in found if row.pinned] + [row for row in found if not row.pinned]


def words_of(session: SessionSummary) -> str:
    """What a filter looks for in a session: its title and tags, in any case."""
    return f"{session.title} {tag_words(session.tags)}".casefold()


def tag_words(tags: Iterable[str]) -> str:
    return " ".join(f"#{tag}" for tag in tags)


def next_order(order: SessionsOrder) -> SessionsOrder:
    """The order that comes after another."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]


class Arrangement:
    """The rows that are wanted; it is asked for at each letter of a filter and each change of a row.

    Attributes:
        total, archived: How many sessions are not in the archive, and how many are.
    """

    def __init__(self) -> None:
        self._sessions: Sequence[SessionSummary] = ()
        self._wanted: Wanted | None = None
        self._sorted: list[tuple[SessionSummary, str]] = []
        self.rows: list[SessionSummary] = []
        self.ids: tuple[str, ...] = ()
        self.known: frozenset[str] = frozenset()
        self.total = self.archived = 0

    def take(self, sessions: Sequence[SessionSummary], wanted: Wanted) -> None:
        """Arrange sessions; what did not change since the last time is not done again."""
        before, self._wanted = self._wanted, wanted
        if before is None or sessions is not self._sessions or before.order != wanted.order:
            self._sort(sessions, wanted.order)
        elif before == wanted:
            return
        words = wanted.words.casefold().split()
        self.rows = [
            row for row, text in self._sorted if row.archived == wanted.archived and all(word in text for word in words)
        ]
        self.ids = tuple(row.id for row in self.rows)

    def _sort(self, sessions: Sequence[SessionSummary], order: SessionsOrder) -> None:
        self._sessions = sessions
        self._sorted = [(row, words_of(row)) for row in arranged(sessions, order)]
        self.known = frozenset(row.id for row in sessions)
        self.archived = sum(row.archived for row in sessions)
        self.total = len(sessions) - self.archived


def session_row(
    summary: SessionSummary,
    shown: str,
    states: SessionStates,
    *,
    order: SessionsOrder = "changed",
    marked: bool = False,
) -> Row:
    """Title, tags and time of a session, behind the mark of what is going on in it."""
    mark, style = ("x", "$accent") if marked else _mark(summary, states)
    return Row(
        summary.id,
        clean(summary.title, newlines=False),
        _detail(summary, states.warm.get(summary.id), order),
        mark,
        style,
        strong=summary.id == shown,
        prose=True,
        note=clean(tag_words(summary.tags), newlines=False),
    )


def _mark(summary: SessionSummary, states: SessionStates) -> tuple[str, str]:
    """`*` streaming, `+` answered unseen, `~` temporary, `◆` pinned."""
    if summary.id in states.streaming:
        return "*", "$accent"
    if summary.id in states.unread:
        return "+", "$success"
    if summary.temporary:
        return "~", "$warning"
    return ("◆", "$secondary") if summary.pinned else (" ", "")


def _detail(summary: SessionSummary, warm: WarmSession | None, order: SessionsOrder) -> str:
    """What the list is sorted by; of a session whose KV cache is kept no more than there is room for beside that."""
    if order == "messages":
        return f"{summary.messages:,} msgs"
    when = (summary.created if order == "created" else summary.updated).astimezone()
    now = datetime.now(when.tzinfo)
    if warm is not None:
        today = when.date() == now.date()
        return f"{WARM_WORDS[warm.place]} {when:%H:%M}" if today else f"{WARM_WORDS[warm.place]} {when:%b %d}"
    return f"{when:%b %d %H:%M}" if abs((now - when).days) < DATED_DAYS else f"{when:%Y-%m-%d}"
