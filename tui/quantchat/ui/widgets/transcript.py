"""The conversation: one widget that draws every message as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.widget import Widget

from quantchat.ui.keys import bindings
from quantchat.ui.transcript.document import START, Place
from quantchat.ui.transcript.drawing import Over
from quantchat.ui.transcript.entry import Entry
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.palette import CLASSES, CSS
from quantchat.ui.transcript.reading import ReadingView

if TYPE_CHECKING:
    from quantchat.domain.thinking import Channel
    from quantchat.ui.transcript.search import Hit, Search
    from quantchat.ui.transcript.snippets import Snippet

__all__ = ["MessageView", "Transcript"]

UNSEEN = "the model no longer sees what is above"


class Transcript(ReadingView):
    """All messages of a session, to be read, searched, folded and copied."""

    COMPONENT_CLASSES: ClassVar[set[str]] = CLASSES
    DEFAULT_CSS = CSS
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("reading")]

    class CopyRequested(Message):
        """The reader wants a text of the transcript in the clipboard; without a text there is none to copy."""

        def __init__(self, text: str, what: str) -> None:
            super().__init__()
            self.text = text
            self.what = what

    class SearchChanged(Message):
        """Another hit is the current one, or their number changed.

        Attributes:
            place: Number of the current hit, from 1; 0 without one.
        """

        def __init__(self, place: int, total: int) -> None:
            super().__init__()
            self.place = place
            self.total = total

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._search: Search | None = None
        self._origin = START
        self._copied: tuple[str, int] | None = None

    # Messages

    def show(self, messages: Sequence[MessageView]) -> None:
        """Replace everything and go to the end."""
        self._deselect_from(0)
        self._document.load(messages)
        self._place = START
        self._focused = len(self._document.entries)
        self._copied = None
        self._follow(True)
        self._lay_out()
        if self._search is not None:
            self._origin = START
            self._begin_search(self._search.text)
            self._tell_search()
        self.refresh()

    def append(self, message: MessageView) -> None:
        self._document.append(message)
        number = len(self._document.entries) - 1
        if self._following and not self.has_focus:
            self._focused = number
        self._changed(number)

    def replace(self, message: MessageView) -> None:
        """Give a message new text, footer or tone; an unknown one is not shown and so left alone."""
        if (number := self._document.find(message.id)) is not None:
            grown = len(message.text) > len(self._document.entries[number].words.raw)
            self._document.entries[number].replace(message)
            self._changed(number, grown=grown)

    def extend(self, message_id: str, text: str, channel: Channel = "answer") -> None:
        """Add streamed text to a message; an unknown one belongs to another session and is left alone."""
        if text and (number := self._document.find(message_id)) is not None:
            self._document.entries[number].extend(text, channel)
            self._changed(number)

    def discard(self, message_id: str) -> None:
        """Take a message away; `remove` is Textual's word for taking the widget away."""
        if (number := self._document.find(message_id)) is None:
            return
        self._deselect_from(number)
        self._document.remove(number)
        last = max(0, len(self._document.entries) - 1)
        self._place = _without(number, self._place, last)
        self._origin = _without(number, self._origin, last)
        self._focused -= number < self._focused
        if self._search is not None:
            self._search.removed(number)
            self._tell_search()
        self._lay_out()
        self.refresh()

    def exchange(self, number: int, messages: Sequence[MessageView]) -> None:
        """Put others in place of a message and all below it at once; to the reader as if each came and went alone."""
        self._deselect_from(number)
        self._document.cut(number)
        for message in messages:
            self._document.append(message)
        last = max(0, len(self._document.entries) - 1)
        self._place, self._origin = (
            place if place.entry < number else Place(min(place.entry, last), 0) for place in (self._place, self._origin)
        )
        self._focused = last if self._following and not self.has_focus else min(self._focused, last)
        if self._search is not None:
            self._begin_search(self._search.text)
            self._tell_search()
        self._lay_out()
        self.refresh()

    def mark_unseen(self, message_id: str | None) -> None:
        """Draw a line below the last message that the model no longer sees; without one, there is no line."""
        number = None if message_id is None else self._document.find(message_id)
        if number is not None:
            # What is said about a message stands with it.
            roles = [entry.message.role for entry in self._document.entries]
            last = len(roles) - 1
            number = next((place for place in range(number, last) if roles[place + 1] != "note"), last)
        for changed in self._document.set_rule(number, UNSEEN):
            self._lay_out(changed=changed)

    def _changed(self, number: int, *, grown: bool = True) -> None:
        if grown:
            self._grown(number)
        else:
            self._lay_out(changed=number)
        if self._search is not None:
            self._search.changed(number)
            self._tell_search()

    # Keys

    async def on_key(self, event: events.Key) -> None:
        """Run commands here and not after the key went up to the app: what came in the same packet stands behind it.

        What is typed and is no command goes to the prompt, and so does all that came behind it.
        """
        if self._left_for() is not None:
            self._pass_on(event)
            return
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.node is self:
            event.stop()
            await self.run_action(active.binding.action)
        elif event.key == "tab":
            # Left to the app, it would be done after letters of the same packet, and from the prompt go on to a list.
            event.stop()
            await self.run_action("screen.write")
        elif active is None and event.is_printable:
            await self.run_action("screen.write")
            self._pass_on(event)

    async def on_paste(self, event: events.Paste) -> None:
        """Put what is pasted into the prompt."""
        if self._left_for() is None:
            await self.run_action("screen.write")
        if (other := self._left_for()) is not None:
            event.stop()
            other.post_message(events.Paste(event.text))

    def _left_for(self) -> Widget | None:
        """The widget that has the keyboard now, if it is another."""
        focused = self.screen.focused
        return None if focused is self else focused

    def _pass_on(self, event: events.Key) -> None:
        if (other := self._left_for()) is not None:
            event.stop()
            other.post_message(events.Key(event.key, event.character))

    # Copying

    def source_of_last_answer(self) -> str | None:
        """Return the last answer as the model wrote it, without what it thought."""
        answers = (entry for entry in reversed(self._document.entries) if entry.message.role == "assistant")
        return next((entry.words.raw for entry in answers if entry.words), None)

    def action_copy_message(self) -> None:
        """Copy the focused message as it was written."""
        entry = self._focused_entry
        names = {"user": "your message", "assistant": "the answer", "note": "the note"}
        what = names[entry.message.role] if entry else "message"
        self.post_message(self.CopyRequested(entry.words.raw if entry else "", what))

    def action_copy_code(self) -> None:
        """Copy the last block of code of the focused message or the last answer with code; again, the one before."""
        from quantchat.ui.transcript.snippets import snippets

        entry, found = self._code_entry(snippets)
        if entry is None or not found:
            self.post_message(self.CopyRequested("", "code in this message" if self.has_focus else "code"))
            return
        number = len(found) - 1
        if self._copied is not None and self._copied[0] == entry.message.id:
            number = (self._copied[1] - 1) % len(found)
        self._copied = (entry.message.id, number)
        self.post_message(self.CopyRequested(found[number].code, found[number].describe(number + 1, len(found))))

    def _code_entry(self, read: Callable[[str], list[Snippet]]) -> tuple[Entry | None, list[Snippet]]:
        if self.has_focus:
            entry = self._focused_entry
            return entry, read(entry.words.raw) if entry is not None else []
        for entry in reversed(self._document.entries):
            if entry.message.role == "assistant" and (found := read(entry.words.raw)):
                return entry, found
        return None, []

    # Versions and branches

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the place of the focused message while others take its place and that of all below it."""
        place, number, self._following = self._place, self._focused, False
        try:
            yield
        finally:
            self._set_unseen(False)
            number = min(number, len(self._document.entries) - 1)
            if number >= 0 and self._ready:
                self._go(place if place.entry < number else Place(number, 0))
                self._bring(number)

    def bring(self, message_id: str) -> None:
        """Focus a message and scroll as little as shows it."""
        number = self._document.find(message_id)
        if number is not None and self._ready:
            self._bring(number)

    async def action_previous_version(self) -> None:
        await self.run_action("screen.version('<')")

    async def action_next_version(self) -> None:
        await self.run_action("screen.version('>')")

    async def action_edit(self) -> None:
        await self.run_action("screen.edit")

    async def action_again(self) -> None:
        await self.run_action("screen.regenerate(True)")

    async def action_begin(self) -> None:
        await self.run_action("screen.begin")

    async def action_fork(self) -> None:
        await self.run_action("screen.fork")

    async def action_delete(self) -> None:
        await self.run_action("screen.delete_message")

    async def action_undo(self) -> None:
        await self.run_action("screen.undo")

    async def action_card(self) -> None:
        await self.run_action("screen.card")

    # The reader's own prompts

    def go_to_prompt(self, direction: int) -> None:
        """Put the user's previous (-1) or next (1) message at the top; after the last one comes the end."""
        if not self._ready or not self._document.entries:
            return
        numbers = [n for n, entry in enumerate(self._document.entries) if entry.message.role == "user"]
        here = self._place
        if direction < 0:
            before = [number for number in numbers if Place(number, 0) < here]
            self._go_to_message(before[-1] if before else 0)
            return
        number = next((number for number in numbers if number > here.entry), None)
        if number is not None:
            self._go_to_message(number)
        if self._place == here:
            self.action_scroll_end()

    def _go_to_message(self, number: int) -> None:
        self._go(Place(number, 0))
        self._focus_on(number)

    # Searching

    @property
    def searching(self) -> bool:
        return self._search is not None

    def find(self, text: str) -> None:
        """Mark a text wherever it occurs, and go to the first place at or below where the search began."""
        if self._search is None:
            self._origin = self._place
        search = self._begin_search(text)
        self._go_to_hit(search.first_from(self._origin.entry))

    def find_from(self, message_id: str, text: str) -> None:
        """Mark a text, and go to the first place in a message or below it."""
        number = self._document.find(message_id)
        self._origin = Place(number or 0, 0)
        self._go_to_hit(self._begin_search(text).first_from(self._origin.entry))

    def _begin_search(self, text: str) -> Search:
        from quantchat.ui.transcript.search import Search

        self._search = Search(text, self._document.entries)
        return self._search

    def end_search(self) -> None:
        """Take the marks away and stay at the place."""
        self._search = None
        self.refresh()

    def step_search(self, direction: int) -> None:
        """Go to the next (1) or previous (-1) hit."""
        if self._search is not None:
            self._go_to_hit(self._search.step(direction, self._place.entry))

    async def action_find(self) -> None:
        await self.run_action("screen.find")

    def action_next_hit(self) -> None:
        self.step_search(1)

    def action_previous_hit(self) -> None:
        self.step_search(-1)

    def _go_to_hit(self, hit: Hit | None) -> None:
        search = self._search
        if hit is not None and search is not None and self._ready:
            self._document.paint(hit.entry)
            if search.is_folded_away(hit):
                self._fold(hit.entry)
                self._document.paint(hit.entry)
            spans = search.spans_of(hit)
            self._show_line(Place(hit.entry, spans[0].line if spans else 0))
        self._tell_search()
        self.refresh()

    def _tell_search(self) -> None:
        if self._search is not None:
            self.post_message(self.SearchChanged(self._search.place, self._search.total))

    def _overs(self, place: Place) -> tuple[Over, ...]:
        if self._search is None:
            return super()._overs(place)
        hits = tuple(
            Over(span.start, span.end, "current" if now else "hit")
            for span, now in self._search.marks(place.entry, place.line)
        )
        return hits + super()._overs(place)


def _without(number: int, place: Place, last: int) -> Place:
    """Return what a place is called when a message is gone; `last` is the number of the last one left."""
    if number == place.entry:
        return Place(min(number, last), 0)
    return place._replace(entry=place.entry - (number < place.entry))
