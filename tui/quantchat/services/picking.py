"""Which sessions are meant: by words that are typed, among the rows of the list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from quantchat.domain.chat import SessionSummary
from quantchat.domain.text import shortened
from quantchat.errors import UsageError

HINT = 'Say "all", "last 20", "#work" or the id of a session'


class SessionPick(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions; without ids and tags all of them that hold messages.

    Attributes:
        ids: These, archived or not; the beginning of an id is enough.
        tags: Those that have one of these tags, in any case.
        last: Of all that, only so many, the last changed first; 0 for no limit.
        archived: Whether archived ones are taken that are not named by their ids.
    """

    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    last: int = 0
    archived: bool = False


def read_pick(text: str) -> SessionPick:
    """Read words such as `all`, `last 20`, `#work`, `archived`, ids and their beginnings.

    Raises:
        UsageError: if a word is none of these.
    """
    words = iter(text.replace(",", " ").split())
    ids, tags, last, archived = [], [], 0, False
    for word in words:
        if word.startswith("#") and len(word) > 1:
            tags.append(word[1:])
        elif word.casefold() == "last":
            last = _count(next(words, ""))
        elif word.casefold() == "archived":
            archived = True
        elif word[0].isdecimal():
            ids.append(word)
        elif word.casefold() != "all":
            raise UsageError("Which sessions?", f'"{shortened(word, 40)}" is not understood', HINT)
    return SessionPick(ids=tuple(ids), tags=tuple(tags), last=last, archived=archived)


def _count(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and 0 < len(word) < 10 and int(word)):
        raise UsageError("Which sessions?", f'"last" wants a number, not "{shortened(word, 40)}"', HINT)
    return int(word)


def picked(rows: Iterable[SessionSummary], pick: SessionPick) -> list[SessionSummary]:
    """Return the sessions that are meant, the last changed first; temporary ones never.

    Raises:
        UsageError: if an id means none or several, or nothing is left.
    """
    kept = sorted((row for row in rows if not row.temporary), key=lambda row: (row.updated, row.id), reverse=True)
    named = {_named(kept, wanted) for wanted in pick.ids}
    tags = {tag.casefold() for tag in pick.tags}
    found = [row for row in kept if row.id in named or _is_meant(row, pick, tags)]
    if not found:
        what = f"no session has the tag {shortened(', '.join(pick.tags), 80)}" if tags else "there are no sessions yet"
        raise UsageError("No session was found", what, HINT)
    return found[: pick.last or None]


def _is_meant(row: SessionSummary, pick: SessionPick, tags: set[str]) -> bool:
    if (row.archived and not pick.archived) or not row.messages:
        return False
    return not tags.isdisjoint(tag.casefold() for tag in row.tags) if tags else not pick.ids


def _named(rows: Sequence[SessionSummary], wanted: str) -> str:
    found = [row.id for row in rows if row.id.casefold().startswith(wanted.casefold())]
    if len(found) != 1:
        what = f"{len(found)} sessions have an id that begins with" if found else "no session has the id"
        raise UsageError("Which sessions?", f"{what} {shortened(wanted, 40)}", "`quantchat sessions` lists them")
    return found[0]
