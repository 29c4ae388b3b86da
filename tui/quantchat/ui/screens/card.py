"""The run card of a message, on one screen that scrolls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.domain.sections import Section, as_text
from quantchat.domain.text import clean
from quantchat.ui.screens.dialogs import Panel
from quantchat.ui.screens.info import info_content


class CardScreen(ModalScreen[None]):
    """Who wrote a message, how, and what that cost."""

    CSS_PATH = ["dialogs.tcss", "card.tcss"]  # noqa: RUF012 - Textual declares it so
    AUTO_FOCUS = "Panel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,i,ctrl+c", "close", "Close"),
        Binding("y,c,ctrl+o", "copy", "Copy"),
    ]

    def __init__(self, title: str, sections: Sequence[Section]) -> None:
        super().__init__()
        self._headline = clean(title, newlines=False)
        self.sections = tuple(sections)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -card") as frame:
            # Not as a text, in which Textual would read markup.
            frame.border_title = Content(self._headline)
            frame.border_subtitle = "y copies all  Esc closes"
            with Panel():
                yield Static(id="card")

    def on_mount(self) -> None:
        self.call_after_refresh(self._draw)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        # A dialog that is being closed loses its widgets first.
        with suppress(NoMatches):
            width = self.query_one(Panel).scrollable_content_region.width
            self.query_one("#card", Static).update(info_content(self.sections, width))

    def action_close(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        from quantchat.ui import clipboard

        clipboard.send(self.app, as_text(self.sections), "the run card")
