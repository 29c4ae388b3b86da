"""Facts in titled sections, for screens, terminals and the clipboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from quantchat.domain.text import clean

Tone = Literal["", "good", "warning", "error"]


class Row(msgspec.Struct, frozen=True):
    """A fact: what it is about, and the fact in words."""

    label: str
    value: str
    tone: Tone = ""


class Piece(msgspec.Struct, frozen=True):
    """A part of a prompt; `special` if the tokenizer takes it as one token of its own."""

    text: str
    special: bool = False


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A titled part: facts, then a prompt or a text to copy.

    Attributes:
        pieces: A prompt whose special tokens are to be told apart.
        copy: The text exactly as it is to be copied.
    """

    title: str
    rows: tuple[Row, ...] = ()
    pieces: tuple[Piece, ...] = ()
    copy: str = ""

    @property
    def text(self) -> str:
        """The prompt, or the text to copy."""
        return self.copy or "".join(piece.text for piece in self.pieces)


def as_text(parts: Sequence[Section]) -> str:
    """Write sections as plain text, to print or to copy."""
    return "\n\n".join("\n".join(_written(part)) for part in parts)


def _written(part: Section) -> Iterator[str]:
    yield part.title
    width = max((len(row.label) for row in part.rows), default=0)
    for row in part.rows:
        yield clean(f"  {row.label:<{width}}  {row.value}" if row.label else f"  {row.value}", newlines=False)
    if part.text:
        yield from (f"  {line}".rstrip() for line in clean(part.text).split("\n"))
