"""Tables: how wide each column may be, and rows laid out in those columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from quantchat.ui.transcript.wrap import Line, width_of, wrap

MEASURED = 16
"""Rows that decide the widths of the columns, so that a long table is not laid out again for each new row."""
_SEPARATOR = " │ "
_NARROWEST = 6
_LONGEST_WORD = 24


@dataclass(frozen=True, slots=True)
class Columns:
    """The layout of a table; without widths each row is a list of its cells, each after the head of its column.

    Attributes:
        spare: Cells that the table leaves free on the screen.
    """

    heads: tuple[tuple[Segment, ...], ...]
    aligns: tuple[str, ...]
    widths: tuple[int, ...] | None
    spare: int = 0


def columns_of(heads: list[Line], aligns: list[str], rows: Sequence[list[Line]], width: int) -> Columns:
    table = [heads, *rows[:MEASURED]]
    wanted = [max(1, *(width_of(row[column]) for row in table)) for column in range(len(heads))]
    words = [max(_longest_word(row[column]) for row in table) for column in range(len(heads))]
    room = width - len(_SEPARATOR) * (len(heads) - 1)
    widths = _widths(wanted, words, room)
    if widths is None:
        return Columns(tuple(map(tuple, heads)), tuple(aligns), None)
    return Columns(tuple(map(tuple, heads)), tuple(aligns), tuple(widths), room - sum(widths))


def head_lines(columns: Columns, rule: Style) -> list[Line]:
    """The heads with a line below them."""
    if columns.widths is None:
        return []
    under = Segment("─┼─".join("─" * width for width in columns.widths), rule)
    return [*row_lines([[*head] for head in columns.heads], columns, rule), [under]]


def row_lines(cells: list[Line], columns: Columns, rule: Style) -> list[Line]:
    """One row side by side; cells that are too long take more lines."""
    assert columns.widths is not None
    widths = _stretched(cells, columns.widths, columns.spare)
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    between = Segment(_SEPARATOR, rule)
    lines = []
    for number in range(max(map(len, wrapped))):
        line: Line = []
        for part, width, align in zip(wrapped, widths, columns.aligns, strict=True):
            line += [*_aligned(part[number] if number < len(part) else [], width, align), between]
        lines.append(_trimmed(line[:-1]))
    return lines


def stacked_lines(cells: list[Line], columns: Columns, width: int) -> list[Line]:
    """One row as lines of head and cell, for a table that is too wide for the screen."""
    lines: list[Line] = []
    for head, cell in zip(columns.heads, cells, strict=True):
        if cell:
            lines += wrap([*head, *([Segment(": ")] if head else []), *cell], width)
    return lines


def _widths(wanted: list[int], words: list[int], room: int) -> list[int] | None:
    if sum(wanted) <= room:
        return wanted
    for longest in (_LONGEST_WORD, _NARROWEST):
        least = [min(want, max(_NARROWEST, min(longest, word))) for want, word in zip(wanted, words, strict=True)]
        if sum(least) <= room:
            return _shared(wanted, least, room)
    return None


def _shared(wanted: list[int], least: list[int], room: int) -> list[int]:
    """Give each column the same width, but no more than it wants and no less than it needs."""

    def widths(level: int) -> list[int]:
        return [min(want, max(need, level)) for want, need in zip(wanted, least, strict=True)]

    level = next(level for level in range(room, -1, -1) if sum(widths(level)) <= room)
    shared = widths(level)
    for column in range(len(shared)):
        if sum(shared) < room and shared[column] < wanted[column]:
            shared[column] += 1
    return shared


def _stretched(cells: list[Line], widths: Sequence[int], spare: int) -> Sequence[int]:
    """Let a row that came after the widths were decided use what is left of the screen, if that is enough."""
    wanted = [max(width, width_of(cell)) for cell, width in zip(cells, widths, strict=True)]
    return wanted if sum(wanted) - sum(widths) <= spare else widths


def _longest_word(cell: Line) -> int:
    return max(map(cell_len, "".join(run.text for run in cell).split()), default=1)


def _aligned(cell: Line, width: int, align: str) -> Line:
    spare = max(0, width - width_of(cell))
    left = {"right": spare, "center": spare // 2}.get(align, 0)
    return [*_blank(left), *cell, *_blank(spare - left)]


def _blank(cells: int) -> Line:
    return [Segment(" " * cells)] if cells else []


def _trimmed(line: Line) -> Line:
    while line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.bgcolor):
        line.pop()
    return line
