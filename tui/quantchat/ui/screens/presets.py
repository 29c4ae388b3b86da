"""Choosing how freely the model picks its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.presets import describe_preset
from quantchat.domain.text import clean
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList


class PresetScreen(ModalScreen[str | None]):
    """The presets; the line below says what the one under the cursor sets."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,ctrl+c", "cancel", "Cancel")]

    def __init__(self, presets: Mapping[str, SamplingOverrides], used: str) -> None:
        super().__init__()
        self._presets = presets
        self._used = used

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -presets") as frame:
            frame.border_title = "Sampling preset"
            frame.border_subtitle = "Enter uses it here  Esc cancels"
            yield RowList(id="presets", empty="No presets")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        rows = [self._row(name) for name in self._presets]
        self.query_one(RowList).show(rows, follow=self._used)

    def _row(self, name: str) -> Row:
        used = name == self._used
        return Row(name, clean(name, newlines=False), mark="●" if used else " ", style="$accent", strong=used)

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        values = self._presets.get(event.option_id or "")
        self.query_one("#meaning", Line).show(Content(describe_preset(values) if values is not None else ""))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_cancel(self) -> None:
        self.dismiss(None)
