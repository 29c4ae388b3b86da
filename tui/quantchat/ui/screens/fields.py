"""Asks for the fields of a prompt template, one after the other."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.attachments import Draft
from quantchat.domain.prompts import PromptTemplate
from quantchat.domain.text import clean
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.widgets.words import Words


class FieldsScreen(ModalScreen[Draft | None]):
    """A place to write for each field; the last Enter fills the template.

    Args:
        template: It has fields.
        first: What the first field holds at the beginning.
    """

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Words"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]

    def __init__(self, template: PromptTemplate, first: Draft | None = None) -> None:
        super().__init__()
        self._template, self._first = template, first or Draft()

    def compose(self) -> ComposeResult:
        with Frame("Enter goes on  Ctrl+J new line  Esc cancels", classes="-words") as frame:
            frame.border_title = clean(self._template.name, newlines=False)
            for number, field in enumerate(self._template.fields):
                yield Static(clean(field, newlines=False), classes="title", markup=False)
                yield Words(Draft() if number else self._first, partial(self._go_on, number), id=f"field-{number}")

    def _go_on(self, number: int, _draft: Draft) -> None:
        if number + 1 < len(self._template.fields):
            # At once: the next field's letters may be in the same packet.
            self.set_focus(self.query_one(f"#field-{number + 1}"))
            return
        drafts = [words.draft for words in self.query(Words)]
        self.dismiss(self._template.filled(dict(zip(self._template.fields, drafts, strict=True))))

    def action_cancel(self) -> None:
        self.dismiss(None)
