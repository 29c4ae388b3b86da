"""Rows of character cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.cells import get_character_cell_size, split_graphemes
from rich.segment import Segment

from quantchat.ui.wire.styles import DEFAULT, UNKNOWN, StyleTable

# Indic scripts, Myanmar, Khmer and emoji: terminals differ in which of these they join, and how wide they are then.
_DISPUTED = re.compile("[\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\U0001f000-\U0010ffff]")
# Text was cleaned before it came here; this is the last door, and nothing that commands a terminal passes it.
_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Row:
    """The cells of one line. The second cell of a wide character holds ""; None is a cell of which nothing is known."""

    __slots__ = ("chars", "odd", "styles")

    def __init__(self, chars: list[str | None], styles: list[int], odd: bool = False) -> None:
        self.chars = chars
        self.styles = styles
        self.odd = odd
        """Whether terminals may disagree about the width of something that stands, or stood, here."""

    @classmethod
    def blank(cls, width: int) -> Row:
        return cls([" "] * width, [DEFAULT] * width)

    @classmethod
    def unknown(cls, width: int) -> Row:
        return cls([None] * width, [UNKNOWN] * width)

    def copy(self) -> Row:
        return Row(self.chars[:], self.styles[:], self.odd)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.chars == other.chars and self.styles == other.styles

    __hash__ = None  # type: ignore[assignment]

    def put(self, x: int, segments: Iterable[Segment], table: StyleTable) -> int:
        """Write segments from column `x`; return the column after them."""
        start = x
        for text, style, control in segments:
            if text and not control:
                x = self._put_text(x, text, table.number(style))
        self._mend(start, x)
        return x

    def _put_text(self, x: int, text: str, style: int) -> int:
        if text.isascii() and text.isprintable():
            cells: Iterable[str] = text
            length = len(text)
        else:
            graphemes = graphemes_of(text)
            if graphemes.lead and x > 0:
                before = x - 2 if x > 1 and self.chars[x - 1] == "" else x - 1
                self.chars[before] = (self.chars[before] or " ") + graphemes.lead
            self.odd = self.odd or graphemes.odd
            cells, length = graphemes.cells, len(graphemes.cells)
        room = len(self.chars) - x
        if length > room:
            cells, length = list(cells)[: max(0, room)], max(0, room)
        self.chars[x : x + length] = cells
        self.styles[x : x + length] = [style] * length
        return x + length

    def _mend(self, start: int, end: int) -> None:
        """A wide character that lost one of its halves is gone."""
        chars = self.chars
        if 0 < start < len(chars) and is_wide(chars[start - 1]) and chars[start] != "":
            chars[start - 1] = " "
        if end < len(chars) and chars[end] == "" and not (end and is_wide(chars[end - 1])):
            chars[end] = " "
        if end == len(chars) and end and is_wide(chars[end - 1]):
            chars[end - 1] = " "


class Graphemes(NamedTuple):
    """A text cut into cells.

    Attributes:
        cells: One string per column; "" after a wide one.
        lead: Marks without a character before them.
        odd: Whether terminals may disagree about a width.
    """

    cells: tuple[str, ...]
    lead: str
    odd: bool


@lru_cache(4096)
def graphemes_of(text: str) -> Graphemes:
    """Cut a text into cells, measured as Textual does; what commands a terminal is taken out."""
    text = _COMMANDS.sub(lambda found: " " * get_character_cell_size(found.group()), text)
    cells: list[str] = []
    lead, odd = "", False
    for start, end, width in split_graphemes(text)[0]:
        grapheme = text[start:end]
        odd = odd or is_disputed(grapheme)
        if width:
            cells += [grapheme, *[""] * (width - 1)]
        elif not cells:
            lead += grapheme
    return Graphemes(tuple(cells), lead, odd or bool(lead))


@lru_cache(4096)
def is_disputed(grapheme: str | None) -> bool:
    """Return whether terminals differ in the width of a grapheme, as they do for marks and for what joins."""
    return grapheme is not None and (len(grapheme) > 1 or _DISPUTED.match(grapheme) is not None)


@lru_cache(4096)
def is_wide(char: str | None) -> bool:
    """Return whether a cell's character takes the next cell too."""
    return char is not None and not char.isascii() and split_graphemes(char)[1] == 2
