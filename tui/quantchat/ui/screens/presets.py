"""Choosing how freely the model picks its words."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from quantchat.domain.presets import describe_preset
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.services.presets import Presets
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

KEPT = {"shipped": "", "yours": "yours", "config.toml": "config.toml", "": ""}


class PresetScreen(ModalScreen[str | None]):
    """The presets; the line below says what the one under the cursor sets, and what is wrong with their files."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,ctrl+c", "cancel", "Cancel")]

    def __init__(self, presets: Presets, used: str) -> None:
        super().__init__()
        self._presets = presets
        self._used = used

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -presets") as frame:
            frame.border_title = "Sampling preset"
            frame.border_subtitle = "Enter uses it here  Delete takes yours away  Esc cancels"
            yield RowList(id="presets", empty="No presets")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._fill()
        for problem in self._presets.problems:
            self.app.notify(problem.sentence(), severity="warning", timeout=10)

    def _fill(self) -> None:
        self.query_one(RowList).show([self._row(name) for name in self._presets.known()], follow=self._used)

    def _row(self, name: str) -> Row:
        used = name == self._used
        detail = KEPT[self._presets.home_of(name)]
        return Row(name, clean(name, newlines=False), detail, "●" if used else " ", "$accent", strong=used)

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        values = self._presets.known().get(event.option_id or "")
        self.query_one("#meaning", Line).show(Content(describe_preset(values) if values is not None else ""))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    @on(RowList.DeleteRequested)
    def _on_delete_requested(self, event: RowList.DeleteRequested) -> None:
        from quantchat.ui.screens.dialogs import ConfirmScreen

        name = event.row_id

        def delete(sure: bool | None) -> None:
            if sure:
                self._delete(name)

        if self._presets.home_of(name) != "yours":
            self._delete(name)
            return
        question = f"Delete the preset “{name}”? Its file moves to the trash folder."
        self.app.push_screen(ConfirmScreen(question, "Delete"), delete)

    def _delete(self, name: str) -> None:
        try:
            self._presets.remove(name)
        except QuantchatError as error:
            words = Content.styled(clean(str(error), newlines=False), "$warning")
            self.query_one("#meaning", Line).show(words)
        else:
            self._fill()

    def action_cancel(self) -> None:
        self.dismiss(None)
