"""The multi-line prompt: Enter sends, Ctrl+J makes a new line."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from quantchat.domain.text import clean

_KEYS = {
    "enter": "submit",
    "ctrl+j": "new_line",
    "shift+enter": "new_line",
    # Shift+Enter of terminals that speak modifyOtherKeys.
    "shift+\r": "new_line",
}


class Prompt(TextArea):
    """Where the user writes; it grows from one line to eight."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 3;
        max-height: 10;
        scrollbar-size-vertical: 1;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "up_or_recall", "Recall", id="prompt.recall", show=False),
    ]

    class Submitted(Message):
        """The user sent the prompt."""

        def __init__(self, prompt: Prompt, text: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.text = text

        @property
        def control(self) -> Prompt:
            return self.prompt

    class RecallRequested(Message):
        """The user asked for an earlier prompt."""

        def __init__(self, prompt: Prompt) -> None:
            super().__init__()
            self.prompt = prompt

        @property
        def control(self) -> Prompt:
            return self.prompt

    def __init__(
        self,
        text: str = "",
        *,
        placeholder: str = "",
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(
            clean(text),
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
            placeholder=placeholder,
            id=id,
            classes=classes,
            disabled=disabled,
        )
        # A blinking cursor sends 560 bytes a second down an idle SSH line.
        self.cursor_blink = False
        # Called at once instead of posting the message: keys of the same packet come before a message does.
        self.take_submit: Callable[[str], None] | None = None

    def load(self, text: str) -> None:
        """Show `text` with the cursor behind it."""
        self.load_text(clean(text))
        self.move_cursor(self.document.end)

    def action_submit(self) -> None:
        if self.read_only or not self.text.strip():
            return
        if self.take_submit is not None:
            self.take_submit(self.text)
        else:
            self.post_message(self.Submitted(self, self.text))

    def action_new_line(self) -> None:
        if not self.read_only:
            self._replace_via_keyboard("\n", *self.selection)

    def action_up_or_recall(self) -> None:
        if self.text:
            self.action_cursor_up()
        else:
            self.post_message(self.RecallRequested(self))

    async def _on_key(self, event: events.Key) -> None:
        # Not bindings: a priority binding runs before the letters typed just ahead of it have reached this widget, and
        # any other comes after TextArea has put a line end in.
        action = _KEYS.get(event.key)
        if action is None:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()
        await self.run_action(action)

    async def _on_paste(self, event: events.Paste) -> None:
        # Textual runs the handlers of every base class unless told otherwise: the raw text would be inserted too.
        event.prevent_default()
        event.stop()
        # Terminals and tmux send the line ends of a paste as carriage returns, as if Enter had been typed.
        text = clean(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if not self.read_only and (result := self._replace_via_keyboard(text, *self.selection)):
            self.move_cursor(result.end_location)
