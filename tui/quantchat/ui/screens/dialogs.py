"""Small dialogs: a question, a title, an error whose text can be copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.domain.text import clean
from quantchat.errors import ErrorReport
from quantchat.ui.keys import scroll_bindings
from quantchat.ui.widgets.field import Field


class Panel(VerticalScroll, inherit_bindings=False):
    """Something to read that is moved with the keys of lists."""

    BINDINGS: ClassVar[list[BindingType]] = [*scroll_bindings()]


class Frame(Panel):
    """A dialog that scrolls where it does not fit; what its keys do stands in its lower edge."""

    def __init__(self, hint: str, *, classes: str = "") -> None:
        super().__init__(classes=f"dialog {classes}")
        self.border_subtitle = hint


class ConfirmScreen(ModalScreen[bool]):
    """A question that Enter or y answers with yes, Esc or n with no.

    Args:
        question: What is asked.
        verb: What the key for yes does, such as `Delete`.
        final: Whether nothing brings it back; Enter, which may have been pressed twice, is no answer then.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("enter", "enter", "Yes"),
        Binding("escape,n,ctrl+c", "answer(False)", "No"),
    ]

    def __init__(self, question: str, verb: str, *, final: bool = False) -> None:
        super().__init__()
        self._question, self._verb, self._final = clean(question), verb, final

    def compose(self) -> ComposeResult:
        first, *rest = self._verb.lower().split()
        with Frame(f"y {' '.join((first + 's', *rest))}  Esc keeps"):
            yield Static(self._question, markup=False)

    def action_answer(self, sure: bool) -> None:
        self.dismiss(sure)

    def action_enter(self) -> None:
        if not self._final:
            self.dismiss(True)


class TitleScreen(ModalScreen[str | None]):
    """Asks for a title."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]
    AUTO_FOCUS = "Input"

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = clean(title, newlines=False)

    def compose(self) -> ComposeResult:
        with Frame("Enter keeps  Esc cancels"):
            yield Static("Title of this session", classes="title")
            yield Field(self._title, max_length=200)

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)

    def action_cancel(self) -> None:
        self.dismiss(None)


def gathered(reports: Sequence[ErrorReport]) -> ErrorReport:
    """Make one report of several, so that they fill one dialog instead of lying over each other."""
    return ErrorReport(
        code="settings",
        title=f"{len(reports)} things in your settings need attention",
        detail="\n\n".join(
            "\n".join(_sentence(part) for part in (report.title, report.detail, report.remedy) if part)
            for report in reports
        ),
    )


def _sentence(text: str) -> str:
    first = text.split(maxsplit=1)[:1]
    # The name of a file stays as it is.
    return text[:1].upper() + text[1:] if first and first[0].rstrip(",:;").isalpha() else text


class TextScreen(ModalScreen[None]):
    """Something to read; c sends its text to the clipboard."""

    CSS_PATH = "dialogs.tcss"
    CLASSES = "-text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,ctrl+c", "close", "Close"),
        Binding("c,ctrl+o", "copy", "Copy"),
    ]

    def __init__(self, title: str, body: str, hint: str = "") -> None:
        super().__init__()
        self._parts = {"title": clean(title), "body": clean(body), "hint": clean(hint)}

    def compose(self) -> ComposeResult:
        with Frame("Esc closes  c copies the text", classes=self.CLASSES):
            for kind, words in self._parts.items():
                if words:
                    yield Static(words, classes=kind, markup=False)

    def action_close(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        from quantchat.ui import clipboard

        clipboard.send(self.app, "\n".join(filter(None, self._parts.values())), "the message")


class ErrorScreen(TextScreen):
    """Something that went wrong and needs reading."""

    CLASSES = "-error"

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.title, _sentence(report.detail), report.remedy)
