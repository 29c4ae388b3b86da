"""A text that the user writes into a dialog: as the prompt is written, and empty if wanted."""

from __future__ import annotations

from collections.abc import Callable

from quantchat.domain.attachments import Draft
from quantchat.ui.widgets.prompt import Prompt


class Words(Prompt):
    """Enter hands the text over, Ctrl+J begins a line, large pastes are folded."""

    DEFAULT_CSS = """
    Words { min-height: 3; max-height: 12; }
    """

    def __init__(self, draft: Draft, take: Callable[[Draft], None], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._draft, self._take = draft, take

    def on_mount(self) -> None:
        self.load_draft(self._draft)

    def action_submit(self) -> None:
        self._take(self.draft)
