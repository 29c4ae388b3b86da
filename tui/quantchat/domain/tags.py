"""Tags of sessions: short words, in any case the same."""

from __future__ import annotations

from collections.abc import Iterable

from quantchat.domain.text import clean

LONGEST = 32
MOST = 20


def read_tags(text: str) -> list[str]:
    """Read tags between spaces or commas, with or without `#`; the first spelling of each stays."""
    words = clean(text.replace(",", " "), newlines=False).split()
    named = (word.lstrip("#")[:LONGEST] for word in words)
    return list(merged(tag for tag in named if tag))


def merged(tags: Iterable[str]) -> tuple[str, ...]:
    """Leave out what was there before in another case, and what is too much."""
    known: dict[str, str] = {}
    for tag in tags:
        known.setdefault(tag.casefold(), tag)
    return tuple(known.values())[:MOST]


def changed_tags(tags: Iterable[str], text: str) -> list[str]:
    """Apply `work -old` to tags: add the one, take the other away."""
    words = read_tags(text)
    gone = {word[1:].lstrip("#").casefold() for word in words if word.startswith("-")}
    wanted = (*tags, *(word for word in words if not word.startswith("-")))
    return [tag for tag in merged(wanted) if tag.casefold() not in gone]
