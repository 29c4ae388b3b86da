"""The line in which a text is typed that is looked for in the chat."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input

from quantchat.ui.commands import find_slash
from quantchat.ui.transcript.search import LONGEST
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line

TYPING_SECONDS = 0.1
"""The search waits until this long after the last letter."""


class FindLine(Horizontal):
    """A field, which hit is shown, and how many there are."""

    DEFAULT_CSS = """
    FindLine { height: 1; background: $surface; }
    FindLine #find-label { width: 6; color: $text-muted; background: $surface; }
    FindLine #find-count { width: auto; min-width: 14; max-width: 75%; padding: 0 1; }
    FindLine #find-count { color: $text-muted; background: $surface; }
    FindLine Input { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "step(1)", "Next hit", show=False),
        Binding("up,shift+enter", "step(-1)", "Previous hit", show=False),
    ]

    class Typed(Message):
        """There is another text to look for."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Stepped(Message):
        """The reader wants the next (1) or the previous (-1) hit."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.display = False
        self._timer: Timer | None = None
        self._told = ""

    def compose(self) -> ComposeResult:
        yield Line(Content(" Find "), id="find-label")
        field = Field(placeholder="a capital letter makes case count", compact=True, max_length=LONGEST)
        # A blinking cursor sends bytes down an idle SSH line.
        field.cursor_blink = False
        yield field
        yield Count(id="find-count")

    @property
    def field(self) -> Input:
        return self.query_one(Input)

    def open(self, text: str = "") -> None:
        """Show the line and look for `text`, else for what was typed the last time."""
        self.display = True
        if text:
            self.field.value = text
        if self.field.value != self._told:
            self._tell()
        self.field.action_select_all()
        self.screen.set_focus(self.field)

    def close(self) -> None:
        """Hide the line; what was typed stays for the next time."""
        self.display = False
        self._told = ""
        self._stop_timer()

    def show_count(self, place: int, total: int) -> None:
        words = f"{place:,} of {total:,}" if total else self._nothing()
        self.query_one(Count).show(words)

    def _nothing(self) -> str:
        words = self._told.strip()
        if words.islower() and find_slash(words) is not None:
            # The slash opens this line; who meant a command is told where commands are typed.
            return f"not found; in the prompt /{words.split()[0]} is a command"
        return "not found" if words else ""

    def action_step(self, direction: int) -> None:
        self._step(direction)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display and event.value != self._told:
            self._stop_timer()
            self._timer = self.set_timer(TYPING_SECONDS, self._tell)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._step(1)

    def on_key(self, event: Key) -> None:
        # Whatever else the field does not take must not scroll or page anything behind it.
        if event.key in ("pageup", "pagedown"):
            event.stop()

    def _step(self, direction: int) -> None:
        """Search at once for what was just typed, else go on to the next hit."""
        if self.field.value != self._told:
            self._tell()
        else:
            self.post_message(self.Stepped(direction))

    def _tell(self) -> None:
        self._stop_timer()
        self._told = self.field.value
        self.post_message(self.Typed(self._told))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None


class Count(Line):
    """The number of hits; as wide as its words."""

    def show(self, content: Content | str) -> None:
        words = Content(content) if isinstance(content, str) else content
        if words.plain != self.plain:
            super().show(words)
            self.refresh(layout=True)
