"""Lists in which letters that mean nothing else are the beginning of a filter, until a key moves the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.content import Content

from quantchat.domain.text import clean, plain

if TYPE_CHECKING:
    from textual.widget import Widget as Base
else:
    # Not a widget: Textual takes styles and names from the first base that is one.
    Base = object

LONGEST = 60
MOVES = ("cursor_", "page_", "first", "last")
"""What begins the actions of keys after which letters are keys of the list again, for the rows that were found."""


class Filtering(Base):
    """A mixin that stands before the list in the bases; the filter is shown in the upper edge."""

    filter = ""
    _typing = False
    _titled = ""

    @property
    def heading(self) -> str:
        """What the list shows, in a word or two."""
        raise NotImplementedError

    def filter_changed(self) -> None:
        """Tell that the filter is another, or that the user comes or goes."""
        raise NotImplementedError

    def action_filter_rows(self) -> None:
        """Begin a filter: from now on all letters belong to it."""
        self._typing = True
        self._tell(self.filter)

    def end_filter(self) -> bool:
        """Show all rows again; say whether some were hidden or a filter was being typed."""
        was_on = self._typing or bool(self.filter)
        self._typing = False
        if was_on:
            self._tell("")
        return was_on

    def show_heading(self) -> None:
        """Say in the upper edge what the list shows, and the filter."""
        words = self.heading
        if self._typing or self.filter:
            words = f"{words.partition(' ')[0]}: {self.filter}{'▏' if self._typing else ''}"
        if words != self._titled:
            self._titled = words
            # Content, because a title that is a text would be taken for markup.
            self.border_title = Content(words)

    async def on_key(self, event: events.Key) -> None:
        """Take what is typed before the keys of lists, once a filter was begun."""
        if event.key == "backspace" and (self._typing or self.filter):
            event.stop()
            event.prevent_default()
            self._shorten()
        elif self._typing and not event.is_printable and (self._command(event.key) or "").startswith(MOVES):
            # The key does its own work, too.
            self._typing = False
            self.show_heading()
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
        self.filter_changed()

    def on_blur(self) -> None:
        if not self.end_filter():
            self.filter_changed()

    def _shorten(self) -> None:
        if self.filter:
            self._typing = True
            self._tell(self.filter[:-1])
        else:
            self.end_filter()

    def _command(self, key: str) -> str | None:
        """The action of a key of lists."""
        active = self.screen.active_bindings.get(key)
        return active.binding.action if active is not None and active.node is self else None

    def _tell(self, text: str) -> None:
        self.filter = clean(text, newlines=False)[:LONGEST]
        self.show_heading()
        self.filter_changed()
