"""The multi-line prompt: Enter sends, Ctrl+J makes a new line, Up recalls, large pastes are folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import BindingType
from textual.document._document import EditResult, Selection
from textual.document._edit import Edit
from textual.message import Message

from quantchat.domain.attachments import Draft
from quantchat.domain.text import plain
from quantchat.ui.keys import bindings
from quantchat.ui.widgets.tokens import TokenArea

if TYPE_CHECKING:
    from quantchat.services.recall import Walk
    from quantchat.ui.completion.completer import Completer

FOLD_CHARACTERS = 2000
FOLD_LINES = 20
"""A paste beyond one of these becomes an attachment: a key in 100 KB of text takes 89 ms."""

_KEYS = {
    "enter": "submit",
    "ctrl+j": "new_line",
    "shift+enter": "new_line",
    # Shift+Enter of terminals that speak modifyOtherKeys.
    "shift+\r": "new_line",
}
# Parts of composed characters and emoji that Python does not call printable.
_JOINERS = frozenset("\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")


class Prompt(TokenArea):
    """Where the user writes; it grows from one line to eight."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 3;
        max-height: 10;
        scrollbar-size-vertical: 1;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("prompt")]

    class Submitted(Message):
        """The user sent the prompt."""

        def __init__(self, prompt: Prompt, draft: Draft) -> None:
            super().__init__()
            self.prompt = prompt
            self.draft = draft

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
        self._held = {}
        # Called at once instead of posting the message: keys of the same packet come before a message does.
        self.take_submit: Callable[[Draft], None] | None = None
        self.begin_recall: Callable[[], Walk] | None = None
        self.completer: Completer | None = None
        self._walk: Walk | None = None
        self._recalled = ""
        super().__init__(
            plain(text),
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

    def load(self, text: str) -> None:
        """Show a text, its attachments as tokens, with the cursor behind it."""
        self.load_draft(Draft.folded(plain(text)))

    def load_draft(self, draft: Draft) -> None:
        self._walk = None
        super().load_draft(draft)
        if self.completer is not None:
            self.completer.close()

    def action_submit(self) -> None:
        if self.read_only or not self.text.strip():
            return
        if self.take_submit is not None:
            self.take_submit(self.draft)
        else:
            self.post_message(self.Submitted(self, self.draft))

    def action_new_line(self) -> None:
        if not self.read_only:
            self._replace_via_keyboard("\n", *self.selection)

    # Earlier prompts

    def action_up_or_recall(self) -> None:
        """Recall in an empty prompt, or from the first line of what was recalled; else move."""
        if not self.text and self.begin_recall is not None and not self.read_only:
            self._walk = self.begin_recall()
        if self._recalling and self.navigator.is_first_wrapped_line(self.cursor_location):
            self._show(self._walk.older() if self._walk else None)
        else:
            self.action_cursor_up()

    def action_cursor_down(self, select: bool = False) -> None:
        if self.text and not select and self._recalling and self.navigator.is_last_wrapped_line(self.cursor_location):
            self._show(self._walk.newer() if self._walk else None)
        else:
            super().action_cursor_down(select)

    @property
    def _recalling(self) -> bool:
        return self._walk is not None and self.text in ("", self._recalled)

    def _show(self, draft: Draft | None) -> None:
        if draft is None:
            return
        walk = self._walk
        self.load_draft(draft)
        self._recalled, self._walk = draft.text, walk if draft.text else None

    # Completion

    def dismiss_completion(self) -> bool:
        """Close the list of completions; say whether it was open."""
        return self.completer is not None and self.completer.dismiss()

    def begin_mention(self) -> None:
        """Begin to name a file."""
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        self._replace_via_keyboard("@" if not before or before[-1].isspace() else " @", *self.selection)

    # Events

    def edit(self, edit: Edit) -> EditResult:
        result = super().edit(edit)
        if self.completer is not None:
            self.completer.edited()
        return result

    def watch_selection(self, _before: Selection, _now: Selection) -> None:
        if self.completer is not None:
            self.completer.moved()

    async def _on_key(self, event: events.Key) -> None:
        # Not bindings: a priority binding runs before the letters typed just ahead of it have reached this widget, and
        # any other comes after TextArea has put a line end in.
        if self.completer is not None and self.completer.take_key(event.key):
            self._taken(event)
        elif (action := _KEYS.get(event.key)) is not None:
            self._taken(event)
            await self.run_action(action)
        elif event.character in _JOINERS:
            self._taken(event)
            self._replace_via_keyboard(event.character, *self.selection)
        elif event.is_printable:
            await super()._on_key(event)
        elif await self._run_own_binding(event.key):
            self._taken(event)

    async def _run_own_binding(self, key: str) -> bool:
        """Run what a key is bound to here; say whether anything is.

        By Textual's own way a key that is bound goes up to the app first, and letters behind it in the same packet
        overtake it: of "ab", Backspace, "c" would remain "ab".
        """
        active = self.screen.active_bindings.get(key)
        if active is None or active.node is not self or active.binding.priority:
            return False
        return await self.app.run_action(active.binding.action, self)

    def _taken(self, event: events.Event) -> None:
        event.stop()
        # Textual runs the handlers of every base class unless told otherwise: a raw paste would be inserted too.
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        self._taken(event)
        self.paste(event.text)

    def action_paste(self) -> None:
        self.paste(self.app.clipboard)

    def paste(self, text: str) -> None:
        """Put a text at the cursor; a large one as an attachment."""
        # Terminals and tmux send the line ends of a paste as carriage returns, as if Enter had been typed.
        text = plain(text)
        if self.read_only or self.disabled or not text or self.put_clipped(text):
            return
        if len(text) > FOLD_CHARACTERS or text.rstrip("\n").count("\n") >= FOLD_LINES:
            self.attach(text)
        else:
            self._replace_via_keyboard(text, *self.selection)
