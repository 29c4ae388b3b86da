"""Dialogs that ask for words: one line, or a text of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.domain.attachments import Draft
from quantchat.domain.text import clean
from quantchat.errors import QuantchatError
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.words import Words


class AskScreen(ModalScreen[str | None]):
    """Asks for a line; an empty one is an answer too."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]
    AUTO_FOCUS = "Input"

    def __init__(self, title: str, value: str = "", hint: str = "") -> None:
        super().__init__()
        self._title, self._value, self._hint = clean(title, newlines=False), clean(value, newlines=False), clean(hint)

    def compose(self) -> ComposeResult:
        with Frame("Enter keeps  Esc cancels"):
            yield Static(self._title, classes="title", markup=False)
            yield Field(self._value)
            if self._hint:
                yield Static(self._hint, classes="hint", markup=False)

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        self.dismiss(None)


class WordsScreen(ModalScreen[str | None]):
    """Asks for a text; Ctrl+G writes it in the user's editor, Ctrl+P takes one of the prompt library.

    Args:
        choose: Lets the user choose a text, and hands it to a function.
    """

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Words"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "cancel", "Cancel", priority=True),
        Binding("ctrl+g", "edit", "Editor", priority=True),
        Binding("ctrl+p", "choose", "Library", priority=True),
    ]

    def __init__(self, title: str, text: str, choose: Callable[[Callable[[Draft], None]], None]) -> None:
        super().__init__()
        self._title, self._text, self._choose = clean(title, newlines=False), text, choose

    def compose(self) -> ComposeResult:
        with Frame("Enter keeps  Ctrl+J new line  Ctrl+G editor  Ctrl+P library  Esc cancels", classes="-words"):
            yield Static(self._title, classes="title", markup=False)
            yield Words(Draft.folded(self._text), self._take)

    def _take(self, draft: Draft) -> None:
        self.dismiss(draft.expanded().strip())

    @property
    def _words(self) -> Words:
        return self.query_one(Words)

    def action_edit(self) -> None:
        from quantchat.ui.editor import edit_text

        try:
            text = edit_text(self.app, self._words.draft.expanded())
        except QuantchatError as error:
            self.app.notify(clean(str(error)), severity="warning", markup=False)
        else:
            self._words.load(text)

    def action_choose(self) -> None:
        self._choose(self._words.load_draft)

    def action_cancel(self) -> None:
        self.dismiss(None)
