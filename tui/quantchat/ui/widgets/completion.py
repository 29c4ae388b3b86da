"""The list of completions above the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from quantchat.domain.text import clean
from quantchat.ui.widgets.rows import shorten

MOST_ROWS = 8
GAP = 2
Row = tuple[str, str]
"""What would be put in, and a word about it."""


class CompletionList(Widget):
    """Shows rows and which is highlighted; it lies over the chat and never has the focus."""

    DEFAULT_CSS = """
    CompletionList {
        overlay: screen;
        display: none;
        height: auto;
        background: $panel;
        color: $foreground;
        text-wrap: nowrap;
    }
    """

    class Chosen(Message):
        """A row was clicked."""

        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[Row, ...] = ()
        self._top = 0
        self._place = 0

    def show(self, rows: Sequence[Row], place: int, space: tuple[int, int]) -> None:
        """Show rows within so many columns and lines above the place where the widget stands."""
        columns, lines = space
        height = max(min(len(rows), MOST_ROWS, lines), 1)
        rows = tuple((clean(name, newlines=False), clean(detail, newlines=False)) for name, detail in rows)
        width = min(max(_width(rows, 0) + (GAP + _width(rows, 1) if _width(rows, 1) else 0) + 2, 20), columns)
        self._top = min(max(self._top, place - height + 1), place)
        if rows != self._rows or not self.display:
            self.styles.width, self.styles.height, self.styles.offset = width, height, (0, -height)
        self._rows, self._place = rows, place
        self.display = True
        self.refresh()

    def close(self) -> None:
        if self.display:
            self.display = False
            self._rows, self._top = (), 0

    @property
    def plain(self) -> str:
        """The rows that can be seen."""
        return self.render().plain if self.display else ""

    def render(self) -> Content:
        height, width = max(int(self.styles.height.value if self.styles.height else 1), 1), self.size.width
        names = min(_width(self._rows, 0), max(width - 2, 1))
        lines = []
        for place, (name, detail) in list(enumerate(self._rows))[self._top : self._top + height]:
            shown = set_cell_size(shorten(name, names), names)
            room = width - names - GAP - 2
            words = set_cell_size(detail, room) if detail and room >= 8 else " " * max(room, 0)
            line = Content.assemble(" ", shown, " " * min(GAP, max(width - names - 2, 0)), (words, "dim"), " ")
            lines.append(line.stylize("reverse") if place == self._place else line)
        return Content("\n").join(lines)

    def on_click(self, event: Click) -> None:
        event.stop()
        place = self._top + event.y
        if place < len(self._rows):
            self.post_message(self.Chosen(place))


def _width(rows: Sequence[Row], column: int) -> int:
    return max((cell_len(row[column]) for row in rows), default=0)
