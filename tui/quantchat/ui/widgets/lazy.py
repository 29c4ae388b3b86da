"""A list whose rows are made when they are drawn: ten thousand of them cost no more than those in view."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar

from textual import events
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from quantchat.ui.keys import bindings

CURSOR = "lazy-rows--cursor"


class LazyRows(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows by id; the row under the cursor keeps it, and its place on the screen, while others come and go.

    A subclass says what stands in a row (`item`, cheap and comparable) and how that looks (`lines_of`).
    """

    ROW_LINES: ClassVar[int] = 1
    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {CURSOR}
    DEFAULT_CSS = """
    LazyRows {
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        text-wrap: nowrap;
        color: $foreground;
        & > .lazy-rows--cursor { color: $foreground; background: $block-cursor-blurred-background; }
        &:focus > .lazy-rows--cursor {
            color: $block-cursor-foreground;
            background: $block-cursor-background;
            text-style: $block-cursor-text-style;
        }
        &:nocolor:focus > .lazy-rows--cursor { text-style: reverse; }
        &:nocolor > .lazy-rows--cursor { text-style: underline; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("list"), Binding("enter", "select", "Choose", show=False)]

    class Chosen(Message):
        """The user chose a row."""

        def __init__(self, rows: LazyRows, row_id: str) -> None:
            super().__init__()
            self.rows = rows
            self.row_id = row_id

        @property
        def control(self) -> LazyRows:
            return self.rows

    def __init__(self, title: str = "", *, id: str, empty: str) -> None:
        super().__init__(id=id)
        # Mouse motion over a line-API widget repaints it whole while it looks for links.
        self.auto_links = False
        self.border_title = Content(title)
        self.empty = empty
        self._ids: Sequence[str] = ()
        self._places: dict[str, int] = {}
        self._cursor: int | None = None
        self._drawn: dict[int, Hashable] = {}
        self._rows = self._columns = 0

    # What a subclass says

    def item(self, number: int) -> Hashable:
        """Return all that the look of a row depends on."""
        raise NotImplementedError

    def lines_of(self, item: Hashable, width: int) -> Sequence[Content]:
        """Lay a row out in `width` cells and `ROW_LINES` lines."""
        raise NotImplementedError

    # Rows

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def highlighted_id(self) -> str | None:
        """The id of the row under the cursor."""
        return None if self._cursor is None else self._ids[self._cursor]

    def show_ids(self, ids: Sequence[str], *, follow: str | None = None) -> None:
        """Show these rows; `follow` names the one that gets the cursor when no row had it."""
        if ids is self._ids or ids == self._ids:
            self._refresh_changed()
            return
        kept, before, top = self.highlighted_id, self._cursor, self.scroll_offset.y
        self._ids, self._places = ids, {row_id: number for number, row_id in enumerate(ids)}
        self._cursor = self._kept_cursor(kept, before, follow)
        self._lay_out()
        if before is not None and kept in self._places:
            self._scroll(top + (self._places[kept] - before) * self.ROW_LINES)
        self._show_cursor()
        self.refresh()

    def _kept_cursor(self, kept: str | None, before: int | None, follow: str | None) -> int | None:
        if not self._ids:
            return None
        if kept in self._places:
            return self._places[kept]
        # Of a row that is gone, its neighbour has the cursor.
        return min(before, len(self._ids) - 1) if before is not None else self._places.get(follow or "", 0)

    def go_to(self, row_id: str | None) -> None:
        """Put the cursor on a row if it is there."""
        if row_id in self._places:
            self._move(self._places[row_id])

    # Keys

    async def on_key(self, event: events.Key) -> None:
        """Run commands here and not after the key went up to the app: what came in the same packet stands behind it."""
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self:
            event.stop()
            event.prevent_default()
            await self.run_action(active.binding.action)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        number = None if offset is None else (self.scroll_offset.y + offset.y) // self.ROW_LINES
        if number is not None and number < len(self._ids):
            self._move(number)
            self.action_select()

    def action_select(self) -> None:
        if self._cursor is not None:
            self.post_message(self.Chosen(self, self._ids[self._cursor]))

    def action_cursor_down(self) -> None:
        self._step(1)

    def action_cursor_up(self) -> None:
        self._step(-1)

    def action_first(self) -> None:
        self._move(0)

    def action_last(self) -> None:
        self._move(len(self._ids) - 1)

    def action_page_down(self) -> None:
        self._move((self._cursor or 0) + self._page)

    def action_page_up(self) -> None:
        self._move((self._cursor or 0) - self._page)

    def action_filter_rows(self) -> None:
        """Only some lists have more than a cursor; elsewhere these keys go on."""
        raise SkipAction

    action_sort_rows = action_info_row = action_delete_row = action_filter_rows

    def _step(self, direction: int) -> None:
        """Go on to the neighbour, around the ends."""
        if self._cursor is not None:
            self._move((self._cursor + direction) % len(self._ids))

    @property
    def _page(self) -> int:
        return max(1, self._rows // self.ROW_LINES - 1)

    # The cursor and the place

    def _move(self, number: int) -> None:
        if not self._ids:
            return
        before, self._cursor = self._cursor, min(max(0, number), len(self._ids) - 1)
        self._show_cursor()
        for changed in {before, self._cursor} - {None}:
            self._refresh_row(changed or 0)

    def _show_cursor(self) -> None:
        rows = self._rows
        if self._cursor is None or not rows:
            return
        top, y = self._cursor * self.ROW_LINES, self.scroll_offset.y
        if top < y:
            self._scroll(top)
        elif top + self.ROW_LINES > y + rows:
            self._scroll(top + self.ROW_LINES - rows)

    def _scroll(self, y: int) -> None:
        self.scroll_to(y=y, animate=False, immediate=True, force=True)

    def _lay_out(self) -> None:
        self.virtual_size = Size(self._columns, len(self._ids) * self.ROW_LINES)

    def on_resize(self, event: events.Resize) -> None:
        # Kept, as a widget that asks for its size between a change of the layout and the layout hides it from Textual.
        self._rows, self._columns = self.scrollable_content_region.height, event.size.width
        self._lay_out()
        self._show_cursor()

    # Drawing

    def render_line(self, y: int) -> Strip:
        number, part = divmod(self.scroll_offset.y + y, self.ROW_LINES)
        width = self.scrollable_content_region.width
        if number >= len(self._ids):
            told = y == 0 and not self._ids
            return self._strip(Content.styled(self.empty, "dim") if told else Content(), width, on_cursor=False)
        item = self.item(number)
        if not part:
            self._drawn[number] = item
        return self._strip(self.lines_of(item, width)[part], width, on_cursor=number == self._cursor)

    def _strip(self, line: Content, width: int, *, on_cursor: bool) -> Strip:
        style = self.get_visual_style(CURSOR) if on_cursor else self.visual_style
        strips = Visual.to_strips(self, line, width, 1, style)
        return (strips[0] if strips else Strip([])).extend_cell_length(width, style.rich_style)

    def _refresh_row(self, number: int) -> None:
        """Draw one row again."""
        y = number * self.ROW_LINES - self.scroll_offset.y
        if -self.ROW_LINES < y < self._rows:
            self.refresh(Region(0, max(0, y), self._columns, self.ROW_LINES))

    def _refresh_changed(self) -> None:
        """Draw again what is in view and looks another way."""
        if not self._ids:
            self.refresh()
            return
        first = self.scroll_offset.y // self.ROW_LINES
        last = first + self._rows // self.ROW_LINES + 1
        self._drawn = {number: item for number, item in self._drawn.items() if first <= number <= last}
        for number, item in list(self._drawn.items()):
            if number < len(self._ids) and self.item(number) != item:
                self._refresh_row(number)
