"""A list of one-line rows that keeps its place while rows change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.styles import RulesMap
from textual.message import Message
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from quantchat.ui.keys import bindings

_NAME = 24
"""Cells that a longer name keeps beside a note."""


@dataclass(frozen=True)
class Row:
    """A row: a mark of one cell, a name that may be shortened, and details at the right edge.

    Attributes:
        prose: Whether the name is words, which lose their end where there is no room; other names lose their middle.
        note: Said before the details where there is room for it beside the name.
        noted: Details with the note among them, for where there is no room for all of both; empty leaves the note out.
    """

    id: str
    name: str
    detail: str = ""
    mark: str = " "
    style: str = ""
    strong: bool = False
    enabled: bool = True
    prose: bool = False
    note: str = ""
    noted: str = ""


def fit_row(row: Row, width: int) -> Content:
    """Lay a row out in `width` cells."""
    detail = row.detail if width - cell_len(row.detail) >= 14 else ""
    if row.note and width - cell_len(f"{row.note} {detail}") - 3 >= min(_NAME, cell_len(row.name)):
        detail = f"{row.note} {detail}"
    elif row.noted and width - cell_len(row.noted) >= 14:
        detail = row.noted
    space = max(width - 2 - (cell_len(detail) + 1 if detail else 0), 1)
    name = set_cell_size((cut_end if row.prose else shorten)(row.name, space), space)
    text = Content.assemble((row.mark, row.style), " ", (name, "bold" if row.strong else ""))
    return text + Content.assemble(" ", (detail, "dim")) if detail else text


class RowVisual(Visual):
    """A row that is laid out when it is drawn, at the width that the list has then.

    Rows laid out on Resize events could stay too narrow: Textual sends none to a list that was hidden if somebody asks
    for its place between the change and the next layout.
    """

    def __init__(self, row: Row) -> None:
        self._row = row

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        return fit_row(self._row, width).render_strips(width, 1, style, options)

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return 1


def shorten(name: str, width: int) -> str:
    """Cut the middle out of a name so that both its ends stay readable."""
    if cell_len(name) <= width:
        return name
    if width < 4:
        return set_cell_size(name, width)
    tail = _last_cells(name, (width - 1) // 2)
    return set_cell_size(name, width - 1 - cell_len(tail)).rstrip() + "…" + tail


def cut_end(words: str, width: int) -> str:
    """Cut words at their end."""
    return words if cell_len(words) <= width else set_cell_size(words, max(width - 1, 0)).rstrip() + "…"


def _last_cells(name: str, width: int) -> str:
    """The end of a name in at most so many cells; some letters take two."""
    begin = len(name)
    while begin and cell_len(name[begin - 1 :]) <= width:
        begin -= 1
    return name[begin:]


class RowList(OptionList, inherit_bindings=False):
    """Rows by id; the highlighted row stays highlighted when others come and go."""

    DEFAULT_CSS = """
    RowList {
        padding: 0;
        scrollbar-size-vertical: 1;
        text-wrap: nowrap;
        &:nocolor:focus > .option-list--option-highlighted { text-style: reverse; }
        &:nocolor > .option-list--option-highlighted { text-style: underline; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list"), Binding("enter", "select", "Choose", show=False)]

    class DeleteRequested(Message):
        """The user asked to delete the highlighted row."""

        def __init__(self, rows: RowList, row_id: str) -> None:
            super().__init__()
            self.rows = rows
            self.row_id = row_id

        @property
        def control(self) -> RowList:
            return self.rows

    def __init__(self, title: str = "", *, id: str, empty: str) -> None:
        super().__init__(id=id, markup=False)
        self.border_title = title
        self._rows: tuple[Row, ...] = ()
        self._shown: tuple[tuple[Row, ...], str] | None = None
        self.empty = empty

    def show(self, rows: Sequence[Row], *, follow: str | None = None) -> None:
        """Show these rows; `follow` names the row to highlight when none was."""
        new = tuple(rows)
        if self._shown == (new, self.empty):
            return
        kept, before, top = self.highlighted_id, self.highlighted, self.scroll_offset.y
        self._rows = new
        self._shown = (new, self.empty)
        self.clear_options()
        if not new:
            self.add_option(Option(Content.styled(self.empty, "dim"), disabled=True))
            return
        self.add_options([Option(RowVisual(row), id=row.id, disabled=not row.enabled) for row in new])
        places = {row.id: place for place, row in enumerate(new) if row.enabled}
        self.highlighted = places.get(kept or follow or "", next(iter(places.values()), None))
        if before is not None and kept in places:
            self.scroll_to(y=top + places[kept] - before, animate=False, immediate=True)

    def go_to(self, row_id: str | None) -> None:
        """Highlight a row if it is there."""
        ids = [row.id for row in self._rows]
        if row_id in ids:
            self.highlighted = ids.index(row_id)

    def action_delete_row(self) -> None:
        if self.highlighted_id is not None:
            self.post_message(self.DeleteRequested(self, self.highlighted_id))

    def action_filter_rows(self) -> None:
        """Only some lists can be filtered; elsewhere the key goes on."""
        raise SkipAction

    def action_sort_rows(self) -> None:
        """Only some lists can be sorted another way."""
        raise SkipAction

    def action_info_row(self) -> None:
        """Only of models there is more to show."""
        raise SkipAction

    @property
    def highlighted_id(self) -> str | None:
        """The id of the highlighted row."""
        option = self.highlighted_option
        return option.id if option is not None else None
