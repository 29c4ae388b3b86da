"""Writes changed cells with the fewest bytes, knowing where the cursor is and which style is set."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quantchat.ui.wire.cells import Row, is_disputed, is_wide
from quantchat.ui.wire.styles import DEFAULT, UNKNOWN, StyleTable

# What erasing costs: `CSI n X` and, if more follows, a move over the erased cells; `CSI K` to the end of the line.
_ERASE_INSIDE, _ERASE_AT_END, _ERASE_LINE = 13, 6, 4
_BLANKS = re.compile(rf" {{{_ERASE_INSIDE},}}")
_BRIDGE = 3
"""Unchanged cells between two changes that cost no more to write again than to jump over."""


class Pen:
    """Collects the sequences of one frame after the other.

    Attributes:
        erases: Whether erased cells take the background that is set (`bce`); else blanks are written as spaces.
    """

    def __init__(self, table: StyleTable, width: int, *, erases: bool = True) -> None:
        self._table = table
        self._width = width
        self.erases = erases
        self._out: list[str] = []
        self.forget()

    def forget(self) -> None:
        """Know neither where the cursor is nor which style is set."""
        self._x: int | None = None
        self._y: int | None = None
        self._style = UNKNOWN

    def take(self) -> str:
        """Return what was collected and start anew."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def raw(self, text: str) -> None:
        """Write a sequence after which the cursor may be anywhere."""
        self._out.append(text)
        self._x = self._y = None

    def reset_style(self) -> None:
        self._set(DEFAULT)

    def row(self, y: int, old: Row, new: Row) -> None:
        """Turn one line into another."""
        for start, end in changes(old, new, self._table.blank):
            self._run(y, start, end, new)

    def move(self, y: int, x: int) -> None:
        """Bring the cursor to a cell by the cheapest way."""
        if (y, x) != (self._y, self._x):
            self._out.append(min(self._ways(y, x), key=len))
            self._y, self._x = y, x

    def _ways(self, y: int, x: int) -> Iterator[str]:
        yield f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H"
        if y == self._y:
            yield "\r" if x == 0 else f"\x1b[{x + 1}G"
            if self._x is not None:
                yield _step(x - self._x, "C", "D")
        elif self._y is not None and self._x is not None:
            if x == self._x:
                yield _step(y - self._y, "B", "A")
            elif x == 0:
                yield "\r" + _step(y - self._y, "B", "A")

    def _run(self, y: int, start: int, end: int, row: Row) -> None:
        styles, x = row.styles, start
        while x < end:
            style, stop = styles[x], x + 1
            while stop < end and styles[stop] == style:
                stop += 1
            self._stretch(y, x, stop, row, stop == end)
            x = stop

    def _stretch(self, y: int, start: int, end: int, row: Row, last: bool) -> None:
        """Write cells that share a style."""
        self.move(y, start)
        style = row.styles[start]
        cells = row.chars[start:end]
        if row.odd and any(map(is_disputed, cells)):
            self._odd(y, start, cells, style)
            return
        text = "".join(cells)  # type: ignore[arg-type]
        if not (self.erases and self._table.plain[style]):
            self._text(y, text, style, len(cells))
            return
        at_edge = end == self._width
        done = 0
        for gap in _gaps(text, last, at_edge):
            ahead = text[done : gap.start()]
            self._text(y, ahead, style, _columns(ahead, cells, len(text)))
            self._erase(y, gap.end() - gap.start(), style, at_edge and gap.end() == len(text))
            done = gap.end()
            if done < len(text) or not last:
                self._skip(y, gap.end() - gap.start())
        self._text(y, text[done:], style, _columns(text[done:], cells, len(text)))

    def _text(self, y: int, text: str, style: int, columns: int) -> None:
        if text:
            self._set(self._table.under_blank(self._style, style) if text.isspace() and text.isascii() else style)
            self._out.append(text)
            self._advance(y, columns)

    def _erase(self, y: int, count: int, style: int, to_edge: bool) -> None:
        self._set(self._table.under_blank(self._style, style))
        self._out.append("\x1b[K" if to_edge else f"\x1b[{count}X")

    def _skip(self, y: int, count: int) -> None:
        assert self._x is not None
        self.move(y, self._x + count)

    def _odd(self, y: int, x: int, cells: list[str | None], style: int) -> None:
        """Write cells one by one, and say anew where to go on after each that terminals measure differently."""
        for offset, char in enumerate(cells):
            if char == "":
                continue
            self.move(y, x + offset)
            wide = offset + 1 < len(cells) and cells[offset + 1] == ""
            disputed = is_disputed(char)
            if disputed and wide:
                # Where the terminal draws it narrow, the other half must not show what stood there.
                self._text(y, "  ", style, 2)
                self.move(y, x + offset)
            self._text(y, char or " ", style, 1 + wide)
            if disputed:
                self._x = None

    def _set(self, style: int) -> None:
        if style != self._style:
            self._out.append(self._table.way(self._style, style))
            self._style = style

    def _advance(self, y: int, columns: int) -> None:
        # In the last column some terminals keep the cursor on it and others after it.
        x = None if self._x is None else self._x + columns
        self._x = None if x is None or x >= self._width else x


def changes(old: Row, new: Row, blank: list[int]) -> list[tuple[int, int]]:
    """Return the runs of cells that look different."""
    if old.chars == new.chars and old.styles == new.styles:
        return []
    cells = zip(old.chars, new.chars, old.styles, new.styles, strict=True)
    changed = [
        x for x, (a, b, s, t) in enumerate(cells) if a != b or (s != t and not (a == " " and blank[s] == blank[t]))
    ]
    if not changed:
        return []
    if old.odd or new.odd:
        return [(changed[0], len(new.chars))]
    return _runs(changed, new)


def _runs(changed: list[int], row: Row) -> list[tuple[int, int]]:
    chars, styles = row.chars, row.styles
    runs: list[tuple[int, int]] = []
    start = end = changed[0]
    for x in changed:
        if x > end > start and (x > end + _BRIDGE or styles[end - 1 : x] != [styles[end - 1]] * (x - end + 1)):
            runs.append((start, end))
            start = x
        end = max(end, x + 1)
        if end < len(chars) and chars[end] == "":
            end += 1
    runs.append((start, end))
    return runs


def _step(distance: int, forward: str, back: str) -> str:
    count, letter = abs(distance), forward if distance > 0 else back
    if letter == "D" and count <= _BRIDGE:
        return "\b" * count
    return f"\x1b[{count if count > 1 else ''}{letter}"


def _gaps(text: str, last: bool, at_edge: bool) -> Iterator[re.Match[str]]:
    """Find the spaces that are cheaper to erase than to write."""
    limit = len(text)
    if last:
        need = _ERASE_LINE if at_edge else _ERASE_AT_END
        tail = len(text) - len(text.rstrip(" "))
        if tail >= need:
            limit -= tail
    yield from _BLANKS.finditer(text, 0, limit)
    if limit < len(text):
        end = re.compile(" +").match(text, limit)
        assert end is not None
        yield end


def _columns(part: str, cells: list[str | None], length: int) -> int:
    """Return how many columns a part of the joined cells takes."""
    return len(part) if length == len(cells) else sum(2 if is_wide(char) else 1 for char in part)
