"""One side of a comparison: who answers, the answer, and its run card."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from quantchat.ui.keys import bindings
from quantchat.ui.transcript.document import Place
from quantchat.ui.transcript.drawing import Over
from quantchat.ui.transcript.pointing import Pointer
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.transcript import Transcript

_READING = ("next", "previous", "first", "last", "up", "down", "page-up", "page-down", "fold", "copy", "code")


class Answers(Transcript, inherit_bindings=False):
    """The transcript of a side; the first token that differs from the other side's is marked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(binding for binding in bindings("reading") if binding.id in {f"read.{name}" for name in _READING}),
        Binding("i", "screen.card", "Run card"),
        Binding("d", "screen.difference", "First difference"),
        Binding("q", "screen.leave", "Close"),
    ]

    def __init__(self, *, classes: str) -> None:
        super().__init__(classes=classes)
        self._pointer: Pointer | None = None
        self._pointed = ""

    async def on_key(self, event: events.Key) -> None:
        # The chat's transcript hands what is typed to the chat's prompt.
        event.prevent_default()

    async def on_paste(self, event: events.Paste) -> None:
        event.prevent_default()

    def point(self, message_id: str, pointer: Pointer | None) -> None:
        """Mark a token of a message, or nothing."""
        place = pointer.place if pointer is not None else None
        if (message_id, place) == (self._pointed, self._pointer.place if self._pointer else None):
            return
        self._pointer, self._pointed = pointer, message_id
        self.refresh()

    def go_to_mark(self) -> bool:
        """Show the marked token; say whether it is shown anywhere."""
        number = self._document.find(self._pointed) if self._pointer is not None else None
        if number is None or self._pointer is None or not self._ready:
            return False
        self._document.paint(number)
        spans = self._pointer.spans(self._document.entries[number])
        if spans:
            self._show_line(Place(number, spans[0].line))
        return bool(spans)

    def _overs(self, place: Place) -> tuple[Over, ...]:
        overs, pointer = super()._overs(place), self._pointer
        if pointer is None or place.entry != self._document.find(self._pointed) or not self._document.owns(place):
            return overs
        spans = pointer.spans(self._document.entries[place.entry])
        return (*overs, *(Over(span.start, span.end, "current") for span in spans if span.line == place.line))


class Column(Vertical):
    """Who answers above, the answer, and what is known of it below."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.answers = Answers(classes="answers")
        self._head, self._figures, self._verdict = Line(), Line(), Line()

    def compose(self) -> ComposeResult:
        yield self._head
        yield self.answers
        yield self._figures
        yield self._verdict

    def say(self, head: Content, figures: Content, verdict: Content) -> None:
        """Draw what stands around the answer."""
        self._head.show(head)
        self._figures.show(figures)
        self._verdict.show(verdict)

    @property
    def plain(self) -> str:
        """What stands around the answer, without styles."""
        return "\n".join(line.plain for line in (self._head, self._figures, self._verdict))
