"""A dialog that takes one of a list, or what was typed in its place."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input

from quantchat.domain.text import clean
from quantchat.ui.screens.typed import TypedScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList


class ChooseScreen(TypedScreen[str]):
    """Typing finds rows; what none of them holds is taken as it is.

    Args:
        rows: What can be chosen; answered by their ids.
        hint: What else can be typed.
        chosen: The id of the row to begin at.
    """

    def __init__(self, title: str, rows: Sequence[Row], hint: str, chosen: str = "") -> None:
        super().__init__()
        self._title, self._choices, self._hint, self._chosen = title, tuple(rows), hint, chosen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -choice") as frame:
            frame.border_title = Content(clean(self._title, newlines=False))
            frame.border_subtitle = "Enter takes it  Esc keeps"
            yield Field(placeholder="Type to find one")
            yield RowList(id="choices", empty="Enter takes what is typed")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(RowList).go_to(self._chosen)
        self.query_one(Line).show(Content(clean(self._hint, newlines=False)))

    @on(Input.Changed)
    def _on_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, typed: str) -> None:
        words = typed.casefold().split()
        found = [row for row in self._choices if all(word in f"{row.name} {row.detail}".casefold() for word in words)]
        rows = self.query_one(RowList)
        rows.show(found)
        if typed:
            rows.action_first()

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        chosen = self.query_one(RowList).highlighted_id
        self.dismiss(chosen if chosen is not None else event.value.strip() or None)

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        self.dismiss(event.option_id)
