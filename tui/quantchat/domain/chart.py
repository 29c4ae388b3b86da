"""Points in plain text: bits per weight across, what they cost upwards, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase

import msgspec

SMALLEST = 1e-6
"""What is less, zero included, lies on the lowest line."""
MOST_TICKS = 9
LABEL = 8
"""Cells of the numbers at the left edge."""
LINES = {False: ("│", "┤", "└", "─", "┴"), True: ("|", "+", "+", "-", "+")}


class Point(msgspec.Struct, frozen=True):
    """A letter at a place."""

    mark: str
    x: float
    y: float


def marks(count: int) -> list[str]:
    """Return letters for so many points, then small ones; points beyond those share a star."""
    letters = ascii_uppercase + ascii_uppercase.lower()
    return [letters[place] if place < len(letters) else "*" for place in range(count)]


def scatter(points: Sequence[Point], width: int, height: int, *, plain: bool = False) -> list[str]:
    """Draw points in `width` columns and `height` lines, with axes; with `plain` in ASCII.

    Points that fall onto the same cell stand beside each other.
    """
    columns, rows = max(width - LABEL - 1, 8), max(height - 2, 3)
    across = _Scale.linear([point.x for point in points], columns)
    upwards = _Scale.logarithmic([max(point.y, SMALLEST) for point in points], rows)
    cells = [[" "] * columns for _ in range(rows)]
    for point in points:
        _put(cells[rows - 1 - upwards.cell(math.log10(max(point.y, SMALLEST)))], across.cell(point.x), point.mark)
    bar, tick, corner, line, below = LINES[plain]
    labels = {rows - 1 - upwards.cell(value): _number(10**value) for value in upwards.ticks(max(2, rows // 2))}
    drawn = [
        f"{labels.get(row, ''):>{LABEL - 1}} {tick if row in labels else bar}{''.join(letters)}".rstrip()
        for row, letters in enumerate(cells)
    ]
    ticks = across.ticks(MOST_TICKS)
    places = {across.cell(value) for value in ticks}
    axis = "".join(below if place in places else line for place in range(columns))
    return [*drawn, f"{'':{LABEL}}{corner}{axis}", _under(across, ticks, columns)]


def _put(line: list[str], place: int, mark: str) -> None:
    """Put a letter at a place, or at the nearest free one."""
    free = [column for column, letter in enumerate(line) if letter == " "]
    if free:
        line[min(free, key=lambda column: (abs(column - place), column < place))] = mark


def _under(scale: _Scale, ticks: Sequence[float], columns: int) -> str:
    line = [" "] * (columns + LABEL + 4)
    for value in ticks:
        text = f"{value:g}"
        begin = LABEL + 1 + scale.cell(value) - (len(text) - 1) // 2
        if all(letter == " " for letter in line[begin - 1 : begin + len(text)]):
            line[begin : begin + len(text)] = text
    return "".join(line).rstrip()


def _number(value: float) -> str:
    return f"{value:g}" if value >= 0.0001 else f"{value:.0e}"


class _Scale(msgspec.Struct, frozen=True):
    """Numbers between two ends, in cells; `step` between the ticks that may be drawn."""

    low: float
    high: float
    cells: int
    step: float

    @classmethod
    def linear(cls, values: Sequence[float], cells: int) -> _Scale:
        """Whole numbers at both ends, with room around the points."""
        low, high = math.floor(min(values) - 0.25), math.ceil(max(values) + 0.25)
        return cls(float(low), float(high), cells, 1.0)

    @classmethod
    def logarithmic(cls, values: Sequence[float], cells: int) -> _Scale:
        """Powers of ten at both ends; the scale holds their exponents."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(float(low), float(max(high, low + 1)), cells, 1.0)

    def cell(self, value: float) -> int:
        """The cell of a number, from 0."""
        share = (value - self.low) / (self.high - self.low)
        return min(max(round(share * (self.cells - 1)), 0), self.cells - 1)

    def ticks(self, most: int) -> list[float]:
        """Some of the whole numbers."""
        count = round(self.high - self.low)
        every = math.ceil((count + 1) / most)
        return [self.low + place for place in range(0, count + 1, every)]
