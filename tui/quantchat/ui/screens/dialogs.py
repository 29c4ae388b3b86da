"""Small dialogs: a question, a title, an error whose text can be copied."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.domain.text import clean
from quantchat.errors import ErrorReport


class ConfirmScreen(ModalScreen[bool]):
    """A question that Enter or y answers with yes, Esc or n with no."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "answer(True)", "Yes"),
        Binding("escape,n,ctrl+c", "answer(False)", "No"),
    ]

    def __init__(self, question: str, verb: str) -> None:
        super().__init__()
        self._question, self._verb = clean(question), verb

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False)
            yield Static(f"Enter or y: {self._verb.lower()}    Esc or n: keep", classes="hint", markup=False)

    def action_answer(self, sure: bool) -> None:
        self.dismiss(sure)


class TitleScreen(ModalScreen[str | None]):
    """Asks for a title."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = clean(title, newlines=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Title of this session", classes="title")
            yield Input(self._title, max_length=200)
            yield Static("Enter keeps it    Esc leaves it as it was", classes="hint")

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)

    def action_cancel(self) -> None:
        self.dismiss(None)


class ErrorScreen(ModalScreen[None]):
    """Something that needs reading; c sends its text to the clipboard."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,ctrl+c", "close", "Close"),
        Binding("c,ctrl+o", "copy", "Copy"),
    ]

    def __init__(self, report: ErrorReport) -> None:
        super().__init__()
        self._report = report

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -error"):
            yield Static(clean(self._report.title), classes="title", markup=False)
            with VerticalScroll(classes="body"):
                yield Static(clean(self._report.detail), markup=False)
            yield Static(clean(self._report.remedy), classes="hint", markup=False)
            yield Static("Esc closes    c copies the text", classes="hint")

    def action_close(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        report = self._report
        self.app.copy_to_clipboard("\n".join((report.title, report.detail, report.remedy)))
        self.app.notify("Sent to the terminal's clipboard (OSC 52)")
