"""Every sampling value of a session: what it is, where that comes from, and another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from quantchat.domain.sampling import MEANINGS, Setting, allowed, shown_value
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import Row, RowList

OWN = "this session"


class SamplingScreen(ModalScreen[None]):
    """The values as rows; what is changed counts from the next answer on.

    Args:
        settings: Gives the values as they are now.
        change: Takes the name of a value and what was typed for it.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,ctrl+c", "close", "Close")]

    def __init__(self, settings: Callable[[], Sequence[Setting]], change: Callable[[str, str], None]) -> None:
        super().__init__()
        self._settings, self._change = settings, change

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -sampling") as frame:
            frame.border_title = "Sampling values of this session"
            frame.border_subtitle = "Enter changes  Delete takes the session's own away  Esc closes"
            yield RowList(id="values", empty="")
            yield Line(id="meaning")

    def on_mount(self) -> None:
        self._fill()

    def _fill(self) -> None:
        self.query_one(RowList).show([self._row(setting) for setting in self._settings()])

    def _row(self, setting: Setting) -> Row:
        own = setting.source == OWN
        value = clean(shown_value(setting.value), newlines=False)
        name = f"{setting.name.replace('_', '-'):20}{value}"
        return Row(setting.name, name, setting.source, "●" if own else " ", "$accent", strong=own, prose=True)

    @on(RowList.OptionHighlighted)
    def _on_highlighted(self, event: RowList.OptionHighlighted) -> None:
        self._say(MEANINGS.get(event.option_id or "", ""))

    def _say(self, words: str, style: str = "") -> None:
        self.query_one("#meaning", Line).show(Content.styled(clean(words, newlines=False), style))

    @on(RowList.OptionSelected)
    def _on_selected(self, event: RowList.OptionSelected) -> None:
        from quantchat.ui.screens.words import AskScreen

        setting = next(one for one in self._settings() if one.name == event.option_id)

        def change(typed: str | None) -> None:
            if typed:
                self._put(setting.name, typed)

        value = "" if setting.value is None else shown_value(setting.value)
        title, hint = setting.name.replace("_", "-"), f"{MEANINGS[setting.name]}. Allowed: {allowed(setting.name)}"
        self.app.push_screen(AskScreen(title, value, hint), change)

    @on(RowList.DeleteRequested)
    def _on_delete_requested(self, event: RowList.DeleteRequested) -> None:
        self._put(event.row_id, "default")

    def _put(self, name: str, typed: str) -> None:
        try:
            self._change(name, typed)
        except QuantchatError as error:
            self._say(str(error), "$error")
        else:
            self._fill()

    def action_close(self) -> None:
        self.dismiss(None)
