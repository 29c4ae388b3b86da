"""The reader's own place in the messages: one of them is focused while the transcript has the keyboard."""

from __future__ import annotations

from textual import events
from textual.strip import Strip

from quantchat.ui.commands import find_command
from quantchat.ui.keys import show_keys
from quantchat.ui.transcript.document import START, Place
from quantchat.ui.transcript.entry import Entry
from quantchat.ui.transcript.selection import whole_message, word_at
from quantchat.ui.transcript.view import DocumentView

_CONTEXT = 3
"""What is searched is put below this part of the view."""


class ReadingView(DocumentView, can_focus=True):
    """A document that is read message by message."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._focused = 0

    def on_mount(self) -> None:
        self._document.fold_key = show_keys(self._keys("read.fold").partition(",")[0])

    def _keys(self, command: str) -> str:
        """The keys that run a command, the user's own if there are any."""
        own: dict[str, str] = getattr(self.app, "key_map", {})
        return own.get(command, find_command(command).keys)

    @property
    def focused_message(self) -> str | None:
        """Id of the message that the reader's keys are about."""
        entry = self._focused_entry
        return entry.message.id if entry is not None else None

    @property
    def _focused_entry(self) -> Entry | None:
        entries = self._document.entries
        return entries[min(self._focused, len(entries) - 1)] if entries else None

    # Moving

    def action_scroll_up(self) -> None:
        self._go(self._walk(-1))

    def action_scroll_down(self) -> None:
        self._go(self._walk(1))

    def action_page_up(self) -> None:
        self._go(self._walk(1 - self._rows))

    def action_page_down(self) -> None:
        self._go(self._walk(self._rows - 1))

    def action_scroll_home(self) -> None:
        self._go(START)
        self._focus_on(0)

    def action_scroll_end(self) -> None:
        self.following = True
        self._focus_on(len(self._document.entries) - 1)

    def action_next_message(self) -> None:
        """Read a long message on to its end, then go to the next."""
        if not self._ready or not self._document.entries:
            return
        below = self._end_of(self._focused) - self._bottom
        if below > 0:
            self._go(self._walk(min(self._rows - 1, below)))
        elif self._focused < len(self._document.entries) - 1:
            self._bring(self._focused + 1)
        else:
            self.following = True

    def action_previous_message(self) -> None:
        """Go back to the top of a long message, then to the one before."""
        if not self._ready or not self._document.entries:
            return
        above = self._document.y_of(self._place) - self._document.y_of(Place(self._focused, 0))
        if above > 0:
            self._go(self._walk(-min(self._rows - 1, above)))
        elif self._focused > 0:
            self._bring(self._focused - 1)

    @property
    def reading_place(self) -> tuple[str, float] | None:
        """The message at the top of the view and what share of its lines is above it; None while the end is shown."""
        if self._following or not self._ready or not self._document.entries:
            return None
        place = self._place
        return self._document.entries[place.entry].message.id, place.line / max(1, self._document.size(place.entry))

    def go_to_message(self, message_id: str, share: float = 0.0) -> bool:
        """Put a message, or the line below so much of it, at the top of the view; say whether it is there."""
        number = self._document.find(message_id)
        if number is None or not self._ready:
            return False
        self._go(Place(number, round(share * self._document.size(number))))
        self._focus_on(number)
        return True

    def _bring(self, number: int) -> None:
        """Focus a message and scroll as little as shows it; of one that is too long, show the top."""
        size = self._document.size(number) - 1
        top = self._document.y_of(Place(number, 0))
        if top < self._document.y_of(self._place) or size > self._rows:
            self._go(Place(number, 0))
        elif top + size - 1 > self._bottom:
            self._go(self._walk(top + size - 1 - self._bottom))
        self._focus_on(number)

    def _end_of(self, number: int) -> int:
        """The last line of a message that is not the blank one below it."""
        return self._document.y_of(Place(number, 0)) + self._document.size(number) - 2

    def _show_line(self, place: Place) -> None:
        """Scroll only if a line is not in view."""
        y = self._document.y_of(place)
        if not self._document.y_of(self._place) <= y <= self._bottom:
            self._go(self._document.walk(place, -(self._rows // _CONTEXT)))
        self._focus_on(place.entry)

    # Focus

    def on_focus(self) -> None:
        """Begin at the end when it is followed, else where the eyes are."""
        if self._ready and not self._in_whole_view(self._focused):
            first, last = self._messages_in_view()
            self._focused = last if self._following or last == first else first + (self._place.line > 0)
        self._refresh_message(self._focused)

    def on_blur(self) -> None:
        self._refresh_message(self._focused)

    def on_click(self, event: events.Click) -> None:
        """Focus the message under the mouse, and fold, unfold or select there."""
        # Textual would select the whole chat at the second click.
        event.prevent_default()
        if not self._ready or self.text_selection is not None:
            return
        if self._unseen and event.y == self._rows - 1 and event.x >= self._columns - len(self._note()):
            self.following = True
            return
        for place, strip in self._document.lines(self.scroll_offset.y + event.y, 1):
            self._focus_on(place.entry)
            self._click(event, place, strip)

    def _click(self, event: events.Click, place: Place, strip: Strip) -> None:
        if not self._document.owns(place):
            return
        if place.line in self._document.entries[place.entry].handles:
            self._fold(place.entry)
        elif event.chain == 2 and (word := word_at(strip, place, event.x)):
            self.screen.selections = {self: word}
        elif event.chain == 3:
            self.screen.selections = {self: whole_message(place.entry, self._document.size(place.entry))}

    def _focus_on(self, number: int) -> None:
        if number != self._focused:
            self._refresh_message(self._focused)
            self._focused = max(0, number)
            self._refresh_message(self._focused)

    def _refresh_message(self, number: int) -> None:
        if self._ready and number < len(self._document.entries) and self._in_view(number):
            top = self._document.y_of(Place(number, 0)) - self.scroll_offset.y
            self._refresh_rows(top, top + self._document.size(number))

    def _is_focused(self, place: Place) -> bool:
        return place.entry == self._focused and self.has_focus and self._document.owns(place)

    def _messages_in_view(self) -> tuple[int, int]:
        return self._place.entry, self._document.locate(self._bottom).entry

    def _in_whole_view(self, number: int) -> bool:
        first, last = self._messages_in_view()
        return first + (self._place.line > 0) <= number <= last

    def _apply(self) -> bool:
        moved = super()._apply()
        if self._document.entries:
            first, last = self._messages_in_view()
            self._focus_on(min(max(self._focused, first), last))
        return moved

    def _note(self) -> str:
        keys = show_keys(self._keys("read.last"))
        told = keys and self.has_focus and self._columns > 60
        return f" ▼ new text below, {keys} goes there " if told else super()._note()

    # Folds

    @property
    def thinking_shown(self) -> bool:
        """Whether what models think is shown in all messages; setting it undoes what was folded singly."""
        return self._document.thinking_shown

    @thinking_shown.setter
    def thinking_shown(self, shown: bool) -> None:
        self._document.show_thinking(shown)
        if self._document.entries and self._document.entries[self._place.entry].thinking:
            self._place = self._place._replace(line=0)
        self._lay_out()
        self.refresh()

    @property
    def has_thinking(self) -> bool:
        return any(entry.thinking for entry in self._document.entries)

    def action_fold(self) -> None:
        """Fold or unfold the thinking or the long paste of the focused message."""
        if self._ready and self._document.entries:
            self._fold(self._focused)

    def _fold(self, number: int) -> None:
        entry = self._document.entries[number]
        if not entry.foldable:
            return
        folds = entry.is_open
        entry.set_open(not folds)
        self._document.touch(number)
        self._go(Place(number, 0) if folds and self._place.entry == number else self._place)
        self.refresh()
