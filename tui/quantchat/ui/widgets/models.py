"""The list of models, in which letters that mean nothing else are the beginning of a filter."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message

from quantchat.domain.text import clean, plain
from quantchat.ui.widgets.rows import RowList

LONGEST = 60


class ModelList(RowList):
    """Rows of models; the filter stands in the upper edge, the order in the lower one."""

    class Changed(Message):
        """The filter is another, or the user comes or goes."""

    class SortRequested(Message):
        """The user wants the next order."""

    class InfoRequested(Message):
        """The user wants to know more about the highlighted model."""

    def __init__(self, *, id: str) -> None:
        super().__init__("Models", id=id, empty="Looking for models …")
        self.filter = ""
        self._typing = False

    def action_filter_rows(self) -> None:
        """Begin a filter: from now on all letters belong to it."""
        self._typing = True
        self._tell(self.filter)

    def action_sort_rows(self) -> None:
        self.post_message(self.SortRequested())

    def action_info_row(self) -> None:
        self.post_message(self.InfoRequested())

    def end_filter(self) -> bool:
        """Show all models again; say whether some were hidden or a filter was being typed."""
        was_on = self._typing
        self._typing = False
        if was_on:
            self._tell("")
        return was_on

    def on_key(self, event: events.Key) -> None:
        """Take what is typed before the keys of lists, once a filter was begun."""
        if event.key == "backspace" and self._typing:
            event.stop()
            self._shorten()
        elif not self._typing and self._command(event.key) == "filter_rows":
            # Not as a binding: letters that came with it would be taken for keys of the list first.
            event.stop()
            event.prevent_default()
            self.action_filter_rows()
        elif event.is_printable and event.character and (self._typing or self._command(event.key) is None):
            event.stop()
            event.prevent_default()
            self._typing = True
            self._tell((self.filter + event.character).lstrip())

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._typing = True
        self._tell((self.filter + plain(event.text)).lstrip())

    def on_focus(self) -> None:
        self.post_message(self.Changed())

    def on_blur(self) -> None:
        if not self.end_filter():
            self.post_message(self.Changed())

    def _shorten(self) -> None:
        if self.filter:
            self._tell(self.filter[:-1])
        else:
            self.end_filter()

    def _command(self, key: str) -> str | None:
        """The action of a key of lists."""
        active = self.screen.active_bindings.get(key)
        return active.binding.action if active is not None and active.node is self else None

    def _tell(self, text: str) -> None:
        self.filter = clean(text, newlines=False)[:LONGEST]
        # Content, because a title that is a text would be taken for markup.
        self.border_title = Content(f"Models: {self.filter}▏" if self._typing else "Models")
        self.post_message(self.Changed())
