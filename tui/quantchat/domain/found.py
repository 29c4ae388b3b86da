"""Text search in sessions: what counts as equal, which texts of a session are searched, and what was found."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from quantchat.domain.chat import Message, Session, SessionSummary
from quantchat.domain.text import clean

BEFORE, AFTER = 40, 120
"""Characters of context on both sides of a hit, where it has so many."""

Place = Literal["title", "tag", "system prompt", "question", "answer", "thinking", "draft"]

_SPACE = re.compile(r"\s+")


class Part(msgspec.Struct, frozen=True):
    """A text of a session; `message` is the id of the message that it belongs to, if it does."""

    place: Place
    text: str
    message: str | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a session that holds the text that was searched.

    Attributes:
        message: The message to jump to, which may lie on another branch than the one shown; None where there is none.
        excerpt: One clean line around the first place where it stands.
        start, end: That place in the excerpt.
        count: How often the part holds it.
    """

    session: SessionSummary
    place: Place
    message: str | None
    excerpt: str
    start: int
    end: int
    count: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search came to.

    Attributes:
        text: What was searched, as it was asked.
        hits: Those of the session that changed last first; in a session the title, then its messages, newest first.
        sessions: How many sessions hold the text, with those whose hits are left out.
        complete: Whether no hits were left out.
        counted: Whether `sessions` is all; with hits enough, those that are not in the index yet are not read.
    """

    text: str
    hits: tuple[Hit, ...] = ()
    sessions: int = 0
    complete: bool = True
    counted: bool = True


def fold(text: str) -> str:
    """Return a text so that equal ones look equal: without case, and with one space for any white space."""
    return " ".join(text.casefold().split())


def parts(session: Session) -> Iterator[Part]:
    """Return all that is searched of a session."""
    yield Part("title", session.title)
    for tag in session.tags:
        yield Part("tag", tag)
    yield Part("system prompt", session.system_prompt)
    for message in reversed(session.messages.values()):
        yield Part(_place(message), message.text, message.id)
        if message.thinking:
            yield Part("thinking", message.thinking, message.id)
    for text in (session.draft, *session.queued):
        yield Part("draft", text)


def _place(message: Message) -> Place:
    places: dict[str, Place] = {"system": "system prompt", "user": "question", "assistant": "answer"}
    return places[message.role]


def hits(summary: SessionSummary, searched: Iterable[Part], needle: str) -> Iterator[Hit]:
    """Yield the parts that hold a folded text, in their order."""
    for part in searched:
        folded = fold(part.text)
        place = folded.find(needle)
        if place >= 0:
            yield _hit(summary, part, folded, place, needle)


def _hit(summary: SessionSummary, part: Part, folded: str, place: int, needle: str) -> Hit:
    start, last = (_unfold(part.text, folded, at) for at in (place, place + len(needle) - 1))
    before, match, after = _excerpt(part.text, start, last + 1)
    return Hit(
        session=summary,
        place=part.place,
        message=part.message,
        excerpt=before + match + after,
        start=len(before),
        end=len(before) + len(match),
        count=folded.count(needle),
    )


def _unfold(text: str, folded: str, place: int) -> int:
    """Return where the character of a text stands that a character of the folded text came from."""
    number = folded.count(" ", 0, place)
    *_, rest = text.split(None, number)
    start = folded.rfind(" ", 0, place) + 1
    word = rest.split(None, 1)[0]
    # A letter may fold to several; what comes before it is longer the more letters it has.
    letters = bisect_right(range(len(word)), place - start, key=lambda end: len(word[:end].casefold())) - 1
    return len(text) - len(rest) + letters


def _excerpt(text: str, start: int, end: int) -> tuple[str, str, str]:
    """Return one line around a place, in three pieces; cut between words where there are any."""
    before, match, after = (
        _one_line(piece) for piece in (text[max(0, start - BEFORE) : start], text[start:end], text[end : end + AFTER])
    )
    if start > BEFORE:
        before = "…" + before[before.find(" ") + 1 :]
    if end + AFTER < len(text):
        after = (after.rpartition(" ")[0] or after) + "…"
    return before.lstrip(), match, after.rstrip()


def _one_line(text: str) -> str:
    return _SPACE.sub(" ", clean(text, newlines=False))
