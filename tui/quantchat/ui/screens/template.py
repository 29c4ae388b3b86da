"""Which chat template a session uses, and what becomes of a conversation with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker

from quantchat.catalog.sample import Sample
from quantchat.domain.text import clean
from quantchat.ui.screens.dialogs import Frame

Wanted = Literal["edit", "own"]


class TemplateScreen(ModalScreen[Wanted | None]):
    """A sample conversation, as the template writes it.

    Args:
        overridden: Whether the session has a template of its own.
        render: Tries the template.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,ctrl+c", "choose('')", "Close"),
        Binding("e,ctrl+g", "choose('edit')", "Edit"),
        Binding("o,delete", "choose('own')", "The model's own"),
    ]

    def __init__(self, overridden: bool, render: Callable[[], Awaitable[Sample]]) -> None:
        super().__init__()
        self._overridden, self._try = overridden, render

    def compose(self) -> ComposeResult:
        own = "  o the model's own" if self._overridden else ""
        with Frame(f"e edits it{own}  Esc closes", classes="-text") as frame:
            frame.border_title = "Chat template"
            whose = "a template of its own" if self._overridden else "the model's own template"
            yield Static(f"This session uses {whose}. /template FILE takes one from a file.", classes="title")
            yield Static("Rendering a sample …", classes="body", id="sample", markup=False)

    def on_mount(self) -> None:
        _: Worker[None] = self.run_worker(self._show())

    async def _show(self) -> None:
        sample = await self._try()
        words = self.query_one("#sample", Static)
        if sample.problem:
            words.update(Content.styled(clean(sample.problem), "$error"))
            return
        pieces = ((clean(piece.text), "$accent" if piece.special else "") for piece in sample.pieces)
        notes = [(f"\n\n{clean(note)}", "dim") for note in sample.notes]
        words.update(Content.assemble(*pieces, *notes))

    def action_choose(self, wanted: str) -> None:
        if wanted == "own" and not self._overridden:
            return
        self.dismiss(wanted or None)  # type: ignore[arg-type]
