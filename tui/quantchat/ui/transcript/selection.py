"""Text that the mouse selects."""

from __future__ import annotations

import re

from rich.cells import cell_len
from textual.geometry import Offset
from textual.selection import Selection
from textual.strip import Strip

from quantchat.ui.transcript.document import Document, Place
from quantchat.ui.transcript.drawing import Over
from quantchat.ui.transcript.entry import BAR

# Selections name a line as message * _LINES + line: heights above it may be corrected while text is selected.
_LINES = 1 << 20


def row(place: Place) -> int:
    return place.entry * _LINES + place.line


def with_offsets(strip: Strip, place: Place) -> Strip:
    """Say of each character where it is, which Textual asks while the mouse selects."""
    return strip.apply_offsets(0, row(place))


def selected_part(selection: Selection, place: Place) -> tuple[Over, ...]:
    span = selection.get_span(row(place))
    return () if span is None else (Over(span[0], None if span[1] == -1 else span[1], "selection"),)


def reaches(selection: Selection, number: int) -> bool:
    """Whether anything of a message, or below it, is selected."""
    return selection.end is None or selection.end.y >= row(Place(number, 0))


def selected_text(selection: Selection, document: Document) -> str:
    """Return what is selected: everything as it was said, or some lines as they are shown."""
    entries = document.entries
    if selection.start is None and selection.end is None:
        return "\n\n".join(entry.words.raw for entry in entries)
    last = len(entries) - 1
    first_row = selection.start.y if selection.start else 0
    last_row = selection.end.y if selection.end else row(Place(last, _LINES - 1))
    lines = []
    for number in range(first_row // _LINES, min(last, last_row // _LINES) + 1):
        document.paint(number)
        for line, strip in enumerate(entries[number].lines[: entries[number].own]):
            span = selection.get_span(row(Place(number, line)))
            if span is not None:
                lines.append(_cut(strip.text, *span))
    return "\n".join(lines)


def _cut(text: str, start: int, end: int) -> str:
    return text[max(BAR, start) : None if end == -1 else max(BAR, end)].rstrip()


def word_at(strip: Strip, place: Place, cell: int) -> Selection | None:
    """Select the word, or the row of other marks, that stands at a cell of a line."""
    text = strip.text
    for found in re.finditer(r"\w+|[^\w\s]+", text[BAR:]):
        start, end = found.start() + BAR, found.end() + BAR
        if cell_len(text[:start]) <= cell < cell_len(text[:end]):
            return Selection(Offset(start, row(place)), Offset(end, row(place)))
    return None


def whole_message(number: int, lines: int) -> Selection:
    return Selection(Offset(0, row(Place(number, 0))), Offset(0, row(Place(number, lines - 1))))
