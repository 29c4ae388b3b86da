"""Sessions as lines of text or as objects for JSON, and the ones that a name means."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from quantchat.domain.chat import SessionSummary
from quantchat.domain.text import clean
from quantchat.errors import UsageError

SHORTEST = 4
"""Letters of an id that may stand for the whole of it."""
LAST = "last"
Hits = Mapping[str, Sequence[tuple[str, str]]]


def wanted(rows: Iterable[SessionSummary], words: Iterable[str]) -> list[SessionSummary]:
    """Keep the sessions in whose id, title or tags all words occur, in any case."""
    parts = [word.casefold() for word in words]
    return [row for row in rows if all(part in _searched(row) for part in parts)]


def _searched(row: SessionSummary) -> str:
    return " ".join((row.id, row.title, *row.tags)).casefold()


def ordered(rows: Sequence[SessionSummary], order: str) -> list[SessionSummary]:
    """Sort by last change or creation (newest first), by title, or by messages (most first)."""
    if order == "title":
        return sorted(rows, key=lambda row: (row.title.casefold(), row.id))
    keys = {"created": lambda row: row.created, "messages": lambda row: row.messages}
    return sorted(rows, key=keys.get(order, lambda row: row.updated), reverse=True)


def lines(rows: Sequence[SessionSummary]) -> list[str]:
    """Return a line each: id, last change, messages, title, tags."""
    width = max((len(f"{row.messages:,}") for row in rows), default=0)
    return [_line(row, width) for row in rows]


def _line(row: SessionSummary, width: int) -> str:
    tags = "".join(f" #{tag}" for tag in row.tags)
    return f"{row.id}  {row.updated.astimezone():%Y-%m-%d %H:%M}  {row.messages:>{width},}  {row.title}{tags}"


def hit_lines(rows: Sequence[SessionSummary], hits: Hits) -> list[str]:
    """Return a line for each session, and below it one for each place that holds what was searched."""
    listed = []
    for row, line in zip(rows, lines(rows), strict=True):
        listed += [line, *(f"    {place}: {excerpt}" for place, excerpt in hits[row.id])]
    return listed


def as_objects(rows: Iterable[SessionSummary], hits: Hits | None) -> list[dict[str, Any]]:
    """Return sessions as plain objects."""
    objects: list[dict[str, Any]] = [msgspec.to_builtins(row) for row in rows]
    for one in objects if hits is not None else ():
        one["hits"] = [{"place": place, "excerpt": excerpt} for place, excerpt in (hits or {})[one["id"]]]
    return objects


def json_text(value: Any) -> str:
    """Write plain objects as JSON in ASCII, which no terminal obeys and every pipe carries."""
    return json.dumps(value, indent=2 if sys.stdout.isatty() else None)


def find_session(name: str, rows: Sequence[SessionSummary], *, whole: bool = False) -> SessionSummary:
    """Return the session that a name means: an id or its beginning, a title or a part of it, or `last`.

    Raises:
        UsageError: if there is none, or there are several.
    """
    words = name.casefold().strip()
    steps = [
        [row for row in rows if row.id.casefold() == words],
        [row for row in rows if row.title.casefold() == words],
        [] if whole else rows[:1] if words == LAST else [],
        [row for row in rows if not whole and len(words) >= SHORTEST and row.id.casefold().startswith(words)],
        [row for row in rows if not whole and words and words in row.title.casefold()],
    ]
    found = next((step for step in steps if step), [])
    if len(found) == 1:
        return found[0]
    shown = clean(name[:80], newlines=False)
    if not found:
        hint = "With --yes give the whole id or title." if whole else "`quantchat sessions` lists them."
        raise UsageError("There is no such session", f"{shown!r} is no id and no title", hint)
    some = "; ".join(f"{row.id} {clean(row.title[:40], newlines=False)}" for row in found[:5])
    raise UsageError("Several sessions are called so", f"{shown!r} may be {some}", "Give the id.")
