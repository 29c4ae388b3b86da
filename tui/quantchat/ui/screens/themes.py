"""Choosing a theme while the screen already shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from quantchat.store.themes import ThemeFile
from quantchat.ui.widgets.rows import Row, RowList

if TYPE_CHECKING:
    from quantchat.ui.theming import Themes


def theme_rows(files: list[ThemeFile], kept: str) -> list[Row]:
    """One row per theme; a dot marks the one in use."""
    return [
        Row(
            file.name,
            file.name,
            "the terminal's colours" if file.native else "dark" if file.dark else "light",
            "●" if file.name == kept else " ",
            "$accent",
            strong=file.name == kept,
        )
        for file in files
    ]


class ThemeScreen(ModalScreen[str | None]):
    """The themes; the one under the cursor is shown at once, and Esc brings the old one back."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,f9,ctrl+c", "cancel", "Cancel")]

    def __init__(self, themes: Themes) -> None:
        super().__init__()
        self._themes = themes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -themes") as frame:
            frame.border_title = "Theme"
            frame.border_subtitle = "Enter keeps  Esc cancels"
            yield RowList(id="themes", empty="No themes were found")

    def on_mount(self) -> None:
        kept = self._themes.kept
        self.query_one(RowList).show(theme_rows(self._themes.files, kept), follow=kept)

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        self._themes.show(event.option_id or self._themes.kept)

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_cancel(self) -> None:
        self._themes.restore()
        self.dismiss(None)
