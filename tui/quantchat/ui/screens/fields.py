"""Asks for the fields of a prompt template, one after the other."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.attachments import Draft
from quantchat.domain.prompts import PromptTemplate
from quantchat.domain.text import clean, shortened
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.widgets.words import Words

SHOWN = 200


class FieldsScreen(ModalScreen[Draft | None]):
    """What was written already, and the place to write the next; the last Enter fills the template.

    All fields share one place: keys behind an Enter in the same packet are on their way to it before the Enter counts.

    Args:
        template: It has fields.
        first: What the first field holds at the beginning.
    """

    CSS_PATH = "dialogs.tcss"
    AUTO_FOCUS = "Words"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "cancel", "Cancel", priority=True),
        Binding("shift+tab", "go_back", "Field before", priority=True),
    ]

    def __init__(self, template: PromptTemplate, first: Draft | None = None) -> None:
        super().__init__()
        self._template, self._fields = template, template.fields
        self._drafts = [first or Draft(), *(Draft() for _ in self._fields[1:])]
        self._place = 0

    def compose(self) -> ComposeResult:
        with Frame("Enter goes on  Shift+Tab back  Ctrl+J new line  Esc cancels", classes="-words") as frame:
            frame.border_title = Content(clean(self._template.name, newlines=False))
            yield Static(id="written", markup=False)
            yield Static(classes="title", id="field", markup=False)
            yield Words(self._drafts[0], self._go_on)

    def on_mount(self) -> None:
        self._label()

    def _label(self) -> None:
        """Name the field that is written now, below those that are."""
        names = [clean(name, newlines=False) for name in self._fields]
        done = zip(names[: self._place], self._drafts, strict=False)
        lines = [Content.assemble((f"{name}: ", "dim"), shortened(draft.text, SHOWN)) for name, draft in done]
        written = self.query_one("#written", Static)
        written.update(Content("\n").join(lines))
        written.display = bool(lines)
        count = f"  {self._place + 1} of {len(names)}" if len(names) > 1 else ""
        self.query_one("#field", Static).update(Content.assemble(names[self._place], (count, "dim")))

    def _go_on(self, draft: Draft) -> None:
        self._drafts[self._place] = draft
        if self._place + 1 < len(self._fields):
            self._show(self._place + 1)
        else:
            self.dismiss(self._template.filled(dict(zip(self._fields, self._drafts, strict=True))))

    def _show(self, place: int) -> None:
        self._place = place
        self.query_one(Words).load_draft(self._drafts[place])
        self._label()

    def action_go_back(self) -> None:
        self._drafts[self._place] = self.query_one(Words).draft
        self._show(max(self._place - 1, 0))

    def action_cancel(self) -> None:
        self.dismiss(None)
