"""A line to type tags in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from quantchat.domain.text import clean, shortened
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.widgets.field import Field

KNOWN_LENGTH = 300


class TagScreen(ModalScreen[str | None]):
    """Asks for the tags of one session, or for what to change in those of several."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "cancel", "Cancel", priority=True)]
    AUTO_FOCUS = "Input"

    def __init__(self, tags: Sequence[str], known: Sequence[str], *, count: int) -> None:
        super().__init__()
        self._tags = clean(" ".join(tags), newlines=False)
        self._known, self._count = known, count

    def compose(self) -> ComposeResult:
        alone = self._count == 1
        with Frame("Enter keeps  Esc cancels", classes="-small"):
            yield Static("Tags of this session" if alone else f"Tags of {self._count:,} sessions", classes="title")
            yield Field(
                f"{self._tags} " if self._tags else "",
                placeholder="words between spaces" if alone else "work  adds it, -work  takes it away",
                max_length=400,
                select_on_focus=False,
            )
            if self._known:
                yield Static(shortened("Known: " + " ".join(self._known), KNOWN_LENGTH), classes="hint", markup=False)

    @on(Input.Submitted)
    def _on_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_cancel(self) -> None:
        self.dismiss(None)
