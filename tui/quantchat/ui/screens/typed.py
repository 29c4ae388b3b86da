"""What dialogs share in which typing finds rows of a list."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widget import Widget

from quantchat.ui.widgets.rows import RowList

T = TypeVar("T")


class TypedScreen(ModalScreen[T | None]):
    """A line that keeps the keyboard, above a list that is moved from there."""

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "cancel", "Cancel", priority=True),
        Binding("down", "row('cursor_down')"),
        Binding("up", "row('cursor_up')"),
        Binding("pagedown", "row('page_down')"),
        Binding("pageup", "row('page_up')"),
        Binding("ctrl+home", "row('first')"),
        Binding("ctrl+end", "row('last')"),
    ]
    ROWS: ClassVar[type[Widget]] = RowList

    async def action_row(self, action: str) -> None:
        await self.query_one(self.ROWS).run_action(action)

    def action_cancel(self) -> None:
        self.dismiss(None)
