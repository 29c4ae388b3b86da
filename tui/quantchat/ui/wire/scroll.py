"""Finds out whether rows of the new frame are rows of the screen that only moved up or down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from quantchat.ui.wire.cells import Row

MIN_ROWS = 4
"""Fewer changed rows than this are not worth a look."""
_PROBES = 3
_COST = 40
"""Cells that a scroll must save to be worth its own sequences."""
_EDGE = 2
"""Columns at the right that may not move with the text: a scrollbar."""

Span = tuple[int, int]


class Scroll(NamedTuple):
    """Rows `top` to `bottom` (inclusive) move up by `lines`, or down if negative."""

    top: int
    bottom: int
    lines: int


def find_scroll(screen: Sequence[Row], frame: Sequence[Row], touched: dict[int, Span]) -> Scroll | None:
    """Return the scroll that leaves the fewest cells to write, if one is worth it.

    Args:
        screen: What the terminal shows.
        frame: What it should show.
        touched: For each row that may differ, its first column and the one after its last.
    """
    best, most = None, _COST
    for top, bottom, span in _blocks(touched):
        lines = _distance(screen, frame, top, bottom, span)
        if not lines:
            continue
        saved = _saved(screen, frame, scroll := Scroll(top, bottom, lines))
        if saved > most:
            best, most = scroll, saved
    return best


def apply_scroll(rows: list[Row], scroll: Scroll) -> None:
    """Move rows as the terminal does; nothing is known of those that come in."""
    top, bottom, lines = scroll
    width = len(rows[top].chars)
    fresh = [Row.unknown(width) for _ in range(abs(lines))]
    block = rows[top : bottom + 1]
    rows[top : bottom + 1] = [*block[lines:], *fresh] if lines > 0 else [*fresh, *block[:lines]]


def scroll_sequence(scroll: Scroll) -> str:
    """Line feeds at the bottom margin, or reverse ones at the top: every terminal knows these."""
    top, bottom, lines = scroll
    region = f"\x1b[{top + 1};{bottom + 1}r"
    if lines > 0:
        return f"{region}\x1b[{bottom + 1}H" + "\n" * lines + "\x1b[r"
    return f"{region}\x1b[{top + 1}H" + "\x1bM" * -lines + "\x1b[r"


def _blocks(touched: dict[int, Span]) -> Iterator[tuple[int, int, Span]]:
    """Return runs of neighbouring rows that were drawn over the same columns."""
    rows = sorted(touched)
    places = [(y - number, touched[y]) for number, y in enumerate(rows)]
    done = 0
    for (_, span), group in groupby(places):
        count = len(list(group))
        if count >= MIN_ROWS:
            yield rows[done], rows[done + count - 1], span
        done += count


def _distance(screen: Sequence[Row], frame: Sequence[Row], top: int, bottom: int, span: Span) -> int:
    """Return by how many lines the rows moved up (down if negative), or 0."""
    window = slice(span[0], max(span[0] + 1, span[1] - _EDGE))
    old = ["".join(char or "" for char in screen[y].chars[window]) for y in range(top, bottom + 1)]
    new = ["".join(char or "" for char in frame[y].chars[window]) for y in range(top, bottom + 1)]
    height = len(new)
    for distance in sorted(range(1 - height, height), key=abs):
        if distance and _moved(old, new, distance):
            return distance
    return 0


def _moved(old: list[str], new: list[str], distance: int) -> bool:
    """Return whether the rows that stay in sight are found so many lines further down."""
    pairs = zip(old[distance:], new, strict=False) if distance > 0 else zip(old, new[-distance:], strict=False)
    alike = told = 0
    for before, after in pairs:
        if before != after:
            # The last line grows while the ones before it move.
            if told:
                break
            continue
        alike += 1
        told += not after.isspace()
    return told >= _PROBES or (told > 0 and alike >= len(new) - abs(distance) - 1)


def _saved(screen: Sequence[Row], frame: Sequence[Row], scroll: Scroll) -> int:
    moved = list(screen)
    apply_scroll(moved, scroll)
    rows = range(scroll.top, scroll.bottom + 1)
    return sum(_differing(screen[y], frame[y]) - _differing(moved[y], frame[y]) for y in rows)


def _differing(old: Row, new: Row) -> int:
    """Return about how many cells must be written; blank ones are cheap and count little."""
    if old.chars == new.chars:
        return 0 if old.styles == new.styles else sum(map(int.__ne__, old.styles, new.styles))
    if old.chars[0] is None:
        return len("".join(filter(None, new.chars)).replace("    ", ""))
    return sum(a != b for a, b in zip(old.chars, new.chars, strict=True))
