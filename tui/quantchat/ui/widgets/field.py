"""A line of text that the user writes into a dialog."""

from __future__ import annotations

from textual.reactive import reactive
from textual.widgets import Input

from quantchat.domain.text import clean


class Field(Input):
    """Cleans and cuts what is put into it; Textual's `Input` draws pastes as they are and refuses long ones."""

    # A blinking cursor sends bytes down an idle line.
    cursor_blink = reactive(False, init=False)

    def replace(self, text: str, start: int, end: int) -> None:
        text = clean(text, newlines=False)
        if self.max_length:
            text = text[: max(0, self.max_length - len(self.value) + abs(end - start))]
        super().replace(text, start, end)
