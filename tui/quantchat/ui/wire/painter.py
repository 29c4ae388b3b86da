"""What the terminal shows, what it should show, and the bytes between the two."""

from __future__ import annotations

from collections.abc import Iterable

from rich.color import ColorSystem
from rich.segment import Segment

from quantchat.ui.wire.cells import Row, is_disputed
from quantchat.ui.wire.pen import Pen
from quantchat.ui.wire.scroll import MIN_ROWS, Span, apply_scroll, find_scroll, scroll_sequence
from quantchat.ui.wire.styles import StyleTable

# No scroll margins, no automatic wrapping: another program may have left them otherwise.
_PRELUDE = "\x1b[r\x1b[?7l"


class Painter:
    """Takes pieces of frames, and writes the difference to what was written before.

    Frames may be left out: what is drawn is always the newest state against what the terminal was sent.
    """

    def __init__(self, *, colors: ColorSystem = ColorSystem.TRUECOLOR, erases: bool = True) -> None:
        self._table = StyleTable(colors)
        self._erases = erases
        self.resize(0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._width, len(self._frame)

    def resize(self, width: int, height: int) -> None:
        """Begin with an empty frame of another size; what the terminal shows is not known."""
        self._width = width
        self._frame = [Row.blank(width) for _ in range(height)]
        self._pen = Pen(self._table, width, erases=self._erases)
        self._cursor: tuple[int, int] | None = None
        self.forget()

    def forget(self) -> None:
        """Take nothing for granted: the next frame is written whole."""
        self._screen = [Row.unknown(self._width) for _ in self._frame]
        self._touched: dict[int, Span] = dict.fromkeys(range(len(self._frame)), (0, self._width))
        self._pen.take()
        self._pen.forget()
        self._lost = True
        self._cursor = None

    def put(self, y: int, x: int, segments: Iterable[Segment]) -> int:
        """Put a piece of the new frame on its place; return the column after it."""
        if not 0 <= y < len(self._frame):
            return x
        end = self._frame[y].put(x, segments, self._table)
        first, last = self._touched.get(y, (x, end))
        self._touched[y] = (min(x, first), max(end, last))
        return end

    def draw(self, cursor: tuple[int, int]) -> str:
        """Return the bytes that bring the terminal up to date, none if it is; the cursor is left at (row, column)."""
        if self._lost:
            self._pen.raw(_PRELUDE)
            self._pen.reset_style()
        touched = [y for y in sorted(self._touched) if self._screen[y] != self._frame[y]]
        if len(touched) >= MIN_ROWS and not self._lost:
            self._scroll(touched)
        for y in touched:
            row = self._frame[y]
            self._pen.row(y, self._screen[y], row)
            row.odd = row.odd and any(map(is_disputed, row.chars))
            self._screen[y] = row.copy()
        self._touched.clear()
        self._lost = False
        text = self._pen.take()
        if text or cursor != self._cursor:
            self._pen.move(*cursor)
            text += self._pen.take()
            self._cursor = cursor
        return text

    def _scroll(self, touched: list[int]) -> None:
        scroll = find_scroll(self._screen, self._frame, self._touched)
        if scroll is None:
            return
        self._pen.raw(scroll_sequence(scroll))
        apply_scroll(self._screen, scroll)
        touched[:] = sorted({*touched, *range(scroll.top, scroll.bottom + 1)})
