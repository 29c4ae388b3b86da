"""Points fall where they belong, on scales that hold them all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.chart import LABEL, Point, marks, scatter

NUMBERS = st.floats(min_value=0, max_value=50, allow_nan=False)


def place(lines: list[str], mark: str) -> tuple[int, int]:
    """Line and column of a mark."""
    return next((row, line.index(mark, LABEL)) for row, line in enumerate(lines) if mark in line[LABEL:])


def test_less_lies_lower_and_more_bits_further_right() -> None:
    lines = scatter([Point("A", 3.4, 0.25), Point("B", 4.4, 0.06), Point("C", 8.4, 0.002)], 70, 16)
    rows, columns = zip(*(place(lines, mark) for mark in "ABC"), strict=True)
    assert list(rows) == sorted(set(rows))
    assert list(columns) == sorted(set(columns))


def test_the_scales_are_true() -> None:
    """A point on a tick stands in the line of its number and above it."""
    lines = scatter([Point("A", 4, 0.01), Point("B", 8, 1.0), Point("C", 2, 0.001)], 70, 16)
    row, column = place(lines, "A")
    assert lines[row].split()[0] == "0.01"
    assert lines[-1][column] == "4"
    row, column = place(lines, "B")
    assert lines[row].split()[0] == "1"
    assert lines[-1][column] == "8"


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30), st.integers(20, 120), st.integers(5, 30))
def test_every_point_is_drawn_and_nothing_leaves_the_frame(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    letters = marks(len(points))
    drawn = [Point(mark, x, y) for mark, (x, y) in zip(letters, points, strict=True)]
    lines = scatter(drawn, width, height, plain=True)
    assert len(lines) == max(height, 5)
    assert all(len(line) <= max(width, LABEL + 9) + 4 for line in lines)
    assert all(line.isascii() for line in lines)
    inside = "".join(line[LABEL + 1 :] for line in lines[:-2])
    if len(points) <= max(width - LABEL - 1, 8):
        assert sorted(inside.replace(" ", "")) == sorted(letters)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-300])
def test_no_divergence_lies_on_the_lowest_line(value: float) -> None:
    lines = scatter([Point("A", 8, value), Point("B", 4, 0.1)], 60, 12)
    assert place(lines, "A")[0] == 9
    assert math.isclose(float(lines[9].split()[0]), 1e-6)


def test_points_beyond_the_letters_share_a_star() -> None:
    assert marks(54)[-3:] == ["z", "*", "*"]
