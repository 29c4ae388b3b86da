"""Painted lines as they go to the terminal: with focus, hits and selection, and in the width of the widget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from quantchat.ui.transcript.entry import BAR
from quantchat.ui.transcript.palette import Marks

_MOST = 2_000
_FOCUS_BAR = "█ "


class Over(NamedTuple):
    """Characters of a line that are drawn in another style; without an end, all from `start` on."""

    start: int
    end: int | None
    kind: Literal["hit", "current", "selection"]


class Drawing:
    """Gives the same strip for the same line as long as nothing about it changes, which is seen at a glance."""

    def __init__(self, width: int, columns: int, style: Style, marks: Marks) -> None:
        self.format = (width, columns, style, marks)
        self._made: dict[tuple[int, bool, tuple[Over, ...], str], tuple[Strip, Strip]] = {}

    def draw(self, strip: Strip, *, focused: bool = False, overs: tuple[Over, ...] = (), note: str = "") -> Strip:
        """Return a line in full width; `note` is laid over its right end."""
        if not (focused or overs or note):
            return self._plain(strip)
        key = (id(strip), focused, overs, note)
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= _MOST:
                self._made.clear()
            # The line is kept with what was made of it, so that no other line can get its id.
            found = self._made[key] = (strip, self._make(strip, focused, overs, note))
        return found[1]

    def _plain(self, strip: Strip) -> Strip:
        width, _, style, _ = self.format
        return strip.apply_style(style).crop_extend(0, width, style)

    def _make(self, strip: Strip, focused: bool, overs: tuple[Over, ...], note: str) -> Strip:
        _, columns, _, marks = self.format
        if focused and strip.cell_length >= BAR:
            strip = Strip([Segment(_FOCUS_BAR, marks.focus), *strip.crop(BAR)])
        strip = self._plain(strip)
        for start, end, kind in overs:
            strip = paint_over(strip, start, end, getattr(marks, kind))
        if note:
            note = set_cell_size(note, min(columns, len(note)))
            start = columns - len(note)
            strip = Strip([*strip.crop(0, start), Segment(note, marks.below), *strip.crop(columns)])
        return strip


def paint_over(strip: Strip, start: int, end: int | None, style: Style) -> Strip:
    """Draw some characters in another style."""
    return Strip(_restyled(strip, start, end, style), strip.cell_length)


def _restyled(segments: Iterable[Segment], start: int, end: int | None, style: Style) -> Iterable[Segment]:
    position = 0
    for text, own, control in segments:
        first = min(max(0, start - position), len(text))
        last = len(text) if end is None else min(max(first, end - position), len(text))
        position += len(text)
        for part, look in (
            (text[:first], own),
            (text[first:last], (own or Style()) + style),
            (text[last:], own),
        ):
            if part:
                yield Segment(part, look, control)
