"""The text of a prompt, drawn line by line: special tokens, what the template adds, what nobody sees, found words."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import ClassVar, Literal, NamedTuple

from rich.cells import cell_len, chop_cells
from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from quantchat.domain.text import clean, spelled
from quantchat.engine.protocol import PromptPiece
from quantchat.ui.keys import scroll_bindings

Kind = Literal["message", "template", "special", "hidden"]
STYLES: dict[Kind, str] = {
    "message": "",
    "template": "$foreground-muted",
    "special": "$accent reverse",
    "hidden": "$error reverse",
}
HIT, CURRENT = "$warning reverse", "$success reverse bold"
LINE_END, LINE_END_STYLE = "↵", "$foreground-muted"
ABOVE = 2
"""Lines that stay in sight above a place that is gone to."""
_SPELLED = re.compile(r"<U\+[0-9A-F]{4,6}>")


class Run(NamedTuple):
    """Characters of one kind, up to `end`."""

    end: int
    kind: Kind


class Shown(NamedTuple):
    """A prompt as it can be drawn.

    Attributes:
        text: With its hidden characters spelled.
        runs: Its parts by kind, in order.
        places: Where the words of each message begin, by its index.
    """

    text: str
    runs: Sequence[Run]
    places: dict[int, int]


def shown(pieces: Iterable[PromptPiece]) -> Shown:
    """Make foreign text safe to draw, and remember which part of it is what."""
    texts: list[str] = []
    runs: list[Run] = []
    places: dict[int, int] = {}
    length = 0
    for piece in pieces:
        if piece.message is not None:
            places.setdefault(piece.message, length)
        kind: Kind = "special" if piece.special else "template" if piece.message is None else "message"
        for text, part in _spelled(piece.text, kind):
            texts.append(text)
            length += len(text)
            runs.append(Run(length, part))
    return Shown("".join(texts), runs, places)


def _spelled(text: str, kind: Kind) -> Iterator[tuple[str, Kind]]:
    written = spelled(text)
    if written is text:
        yield clean(text), kind
        return
    # What looks spelled but stood so in the text is marked with it: nobody can tell them apart.
    parts = _SPELLED.split(written)
    for before, found in zip(parts, [*_SPELLED.findall(written), ""], strict=True):
        yield clean(before), kind
        yield found, "hidden"


class PromptText(ScrollView, can_focus=True, inherit_bindings=False):
    """A text that breaks exactly at the width, so that every space stays."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "PromptText { overflow-x: hidden; scrollbar-size-vertical: 1; text-wrap: nowrap; }"
    BINDINGS: ClassVar[list[BindingType]] = [*scroll_bindings()]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        # Mouse motion over a line-API widget repaints it whole while it looks for links.
        self.auto_links = False
        self._shown = Shown("", (), {})
        self._run_ends: list[int] = []
        self._starts: list[int] = []
        self._columns = self._rows = 0
        self._hits: list[tuple[int, int]] = []
        self._hit = -1

    def show(self, what: Shown) -> None:
        """Show a prompt from its beginning."""
        self._shown = what
        self._run_ends = [run.end for run in what.runs]
        self._lay_out()

    # Going somewhere

    def go_to_message(self, message: int) -> bool:
        """Bring the beginning of a message into sight; say whether it has one."""
        place = self._shown.places.get(message)
        if place is not None:
            self._go_to(place)
        return place is not None

    def go_to_end(self) -> None:
        """Bring the end into sight, where the answer begins."""
        self._go_to(len(self._shown.text))

    def _go_to(self, place: int) -> None:
        line = max(0, bisect_right(self._starts, place) - 1)
        self.scroll_to(y=max(0, line - ABOVE), animate=False, immediate=True, force=True)

    # Finding

    def find(self, text: str) -> tuple[int, int]:
        """Mark a text and go to its next occurrence; return which it is, from 1, and how many there are."""
        here = self._starts[min(self.scroll_offset.y, len(self._starts) - 1)] if self._starts else 0
        flags = 0 if any(char.isupper() for char in text) else re.IGNORECASE
        found = re.finditer(re.escape(text), self._shown.text, flags) if text else ()
        self._hits = [match.span() for match in found]
        self._hit = -1
        after = bisect_right(self._hits, (here, -1))
        return self._take_hit(after % len(self._hits) if self._hits else -1)

    def step(self, direction: int) -> tuple[int, int]:
        """Go to the next or the previous occurrence, around the ends."""
        return self._take_hit((self._hit + direction) % len(self._hits) if self._hits else -1)

    def _take_hit(self, number: int) -> tuple[int, int]:
        self._hit = number
        if number >= 0:
            self._go_to(self._hits[number][0])
        self.refresh()
        return number + 1, len(self._hits)

    # Drawing

    def on_resize(self, event: events.Resize) -> None:
        region = self.scrollable_content_region
        if (region.width, region.height) != (self._columns, self._rows):
            self._columns, self._rows = region.width, region.height
            self._lay_out()

    def _lay_out(self) -> None:
        """Cut the text into lines; the one at the top stays there."""
        top = self._starts[self.scroll_offset.y] if self.scroll_offset.y < len(self._starts) else 0
        # The last column is for the mark of a line's end.
        self._starts = list(line_starts(self._shown.text, max(1, self._columns - 1))) if self._columns else []
        self.virtual_size = Size(self._columns, len(self._starts))
        if top:
            line = bisect_right(self._starts, top) - 1
            self.scroll_to(y=line, animate=False, immediate=True, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        number, width = self.scroll_offset.y + y, self.scrollable_content_region.width
        line = Content.assemble(*self._parts(number)) if number < len(self._starts) else Content()
        strips = Visual.to_strips(self, line, width, 1, self.visual_style)
        return (strips[0] if strips else Strip([])).extend_cell_length(width, self.visual_style.rich_style)

    def _parts(self, number: int) -> Iterator[tuple[str, str]]:
        text, start = self._shown.text, self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(text)
        broken = end > start and text[end - 1] == "\n"
        yield from self._styled(start, end - broken)
        if broken:
            yield LINE_END, LINE_END_STYLE

    def _styled(self, start: int, end: int) -> Iterator[tuple[str, str]]:
        """Cut a part of the text where its style changes."""
        while start < end:
            run = self._shown.runs[bisect_right(self._run_ends, start)]
            style, stop = self._hit_style(start, min(end, run.end))
            yield self._shown.text[start:stop], style or STYLES[run.kind]
            start = stop

    def _hit_style(self, start: int, end: int) -> tuple[str, int]:
        """Return the style of a hit at `start`, if there is one, and where it ends or the next begins."""
        number = bisect_right(self._hits, start, key=lambda span: span[0]) - 1
        if number >= 0 and start < self._hits[number][1]:
            return (CURRENT if number == self._hit else HIT), min(end, self._hits[number][1])
        following = self._hits[number + 1][0] if number + 1 < len(self._hits) else end
        return "", min(end, following)


def line_starts(text: str, width: int) -> Iterator[int]:
    """Yield where each line begins, when a text breaks at its line ends and at so many cells."""
    start = 0
    for line in text.split("\n"):
        yield from _cuts(line, start, width)
        start += len(line) + 1


def _cuts(line: str, start: int, width: int) -> Iterable[int]:
    if line.isascii():
        return range(start, start + max(1, len(line)), width)
    if len(line) * 2 <= width or cell_len(line) <= width:
        return (start,)
    return accumulate((len(part) for part in chop_cells(line, width)[:-1]), initial=start)
