"""All messages of a transcript as one long column of lines, painted only where the reader looks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from textual.strip import Strip

from quantchat.ui.transcript.entry import BAR, Entry
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.palette import Palette

if TYPE_CHECKING:
    from quantchat.ui.transcript.painter import Painter


class Place(NamedTuple):
    """A line, said so that a changed height elsewhere does not move it: a message and a line of it."""

    entry: int
    line: int


START = Place(0, 0)

HELD_LINES = 3_000
"""Painted lines that are kept; each takes some 8 KiB once it was on the screen."""
_HELD_ENTRIES = 32
"""Messages whose lines are kept however many they are; more on a screen that shows more at once."""


class Document:
    """Messages, their heights, and the lines that were painted so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._numbers: dict[str, int] = {}
        self._tops: list[int] = [0]
        self._exact_tops = 0
        self._width = 0
        self._palette: Palette | None = None
        self._painter: Painter | None = None
        self._painted: dict[Entry, int] = {}
        self._held = 0
        self._least = _HELD_ENTRIES
        self.thinking_shown = False
        self.fold_key = ""

    @property
    def total(self) -> int:
        """Lines in all, partly estimated."""
        return self._top(len(self.entries))

    def set_format(self, width: int, palette: Palette) -> bool:
        """Use this width and palette; return whether that changes anything."""
        if (width, palette) == (self._width, self._palette):
            return False
        self._width, self._palette, self._painter = width, palette, None
        self._exact_tops = 0
        return True

    def load(self, messages: Iterable[MessageView]) -> None:
        """Replace everything."""
        self._painted, self._held = {}, 0
        self.entries = [Entry(message, show_thinking=self.thinking_shown) for message in messages]
        self._renumber()

    def append(self, message: MessageView) -> None:
        self._numbers[message.id] = len(self.entries)
        self.entries.append(Entry(message, show_thinking=self.thinking_shown))

    def remove(self, number: int) -> None:
        self._held -= self._painted.pop(self.entries.pop(number), 0)
        self._renumber()

    def cut(self, number: int) -> None:
        """Remove a message and all below it."""
        for entry in self.entries[number:]:
            self._held -= self._painted.pop(entry, 0)
        del self.entries[number:]
        self._numbers = {name: place for name, place in self._numbers.items() if place < number}
        self.touch(number)

    def find(self, message_id: str) -> int | None:
        return self._numbers.get(message_id)

    def show_thinking(self, shown: bool) -> None:
        """Show or hide what all models thought."""
        self.thinking_shown = shown
        for entry in self.entries:
            entry.show_thinking(shown)
        self._exact_tops = 0

    def set_rule(self, number: int | None, words: str) -> list[int]:
        """Draw a line below one message, and below no other; return the numbers of those that changed."""
        wanted = (words if place == number else "" for place in range(len(self.entries)))
        return [place for place, rule in enumerate(wanted) if self.entries[place].set_rule(rule)]

    def owns(self, place: Place) -> bool:
        """Whether a painted line is part of its message."""
        return place.line < self.entries[place.entry].own

    def touch(self, number: int) -> None:
        """Say that a message changed."""
        self._exact_tops = min(self._exact_tops, number)

    def y_of(self, place: Place) -> int:
        return self._top(place.entry) + place.line

    def locate(self, y: int) -> Place:
        """Return which line is at `y`, as far as heights are known."""
        if not self.entries:
            return START
        self._top(len(self.entries))
        number = min(max(0, bisect_right(self._tops, max(0, y)) - 1), len(self.entries) - 1)
        return Place(number, min(max(0, y - self._tops[number]), self._height(number) - 1))

    def lines(self, y: int, count: int) -> Iterator[tuple[Place, Strip]]:
        """Return painted lines from `y` on, as many as there are."""
        if not 0 <= y < self.total:
            return
        number, line = self.locate(y)
        first = number
        while number < len(self.entries) and count > 0:
            self._least = max(_HELD_ENTRIES, number - first + 1)
            self.paint(number)
            strips = self.entries[number].lines[line : line + count]
            yield from ((Place(number, line + index), strip) for index, strip in enumerate(strips))
            count -= len(strips)
            number, line = number + 1, 0

    def paint(self, number: int) -> int | None:
        """Make a message's height exact; return its first line that changed, or None."""
        entry, painter = self.entries[number], self._brush()
        self._painted[entry] = self._painted.pop(entry, 0)
        if entry.is_painted(painter):
            return None
        height = entry.height(self._width)
        first = entry.paint(painter)
        if entry.height(self._width) != height:
            self.touch(number)
        self._hold(entry)
        return first

    def _hold(self, entry: Entry) -> None:
        """Hold the lines of an entry, and let go of those that were wanted longest ago."""
        self._held += len(entry.lines) - self._painted[entry]
        self._painted[entry] = len(entry.lines)
        while self._held > HELD_LINES and len(self._painted) > self._least:
            oldest = next(iter(self._painted))
            self._held -= self._painted.pop(oldest)
            oldest.forget()

    def end(self, height: int) -> Place:
        """Paint the last screenful; return its top line."""
        return self.walk(Place(len(self.entries), 0), -height) if self.entries else START

    def cover(self, place: Place, height: int) -> Place:
        """Paint a screenful that begins at `place`, or at the last one possible; return its top line."""
        if not self.entries:
            return START
        self.paint(place.entry)
        place = place._replace(line=min(place.line, self._height(place.entry) - 1))
        number, rows = place.entry, -place.line
        while number < len(self.entries):
            self.paint(number)
            rows += self._height(number)
            if rows >= height:
                return place
            number += 1
        return self.end(height)

    def size(self, number: int) -> int:
        """Paint a message; return how many lines it takes."""
        self.paint(number)
        return self._height(number)

    def walk(self, place: Place, lines: int) -> Place:
        """Go up or down by exactly so many lines, painting what is passed."""
        number, line = place.entry, place.line + lines
        while line < 0 and number > 0:
            number -= 1
            self.paint(number)
            line += self._height(number)
        while number < len(self.entries) - 1:
            self.paint(number)
            if line < self._height(number):
                break
            line -= self._height(number)
            number += 1
        return Place(min(number, max(0, len(self.entries) - 1)), max(0, line))

    def _brush(self) -> Painter:
        if self._painter is None:
            from quantchat.ui.transcript.painter import Painter

            assert self._palette is not None
            self._painter = Painter(self._width - BAR, self._palette, self.fold_key)
        return self._painter

    def _height(self, number: int) -> int:
        return self.entries[number].height(self._width)

    def _renumber(self) -> None:
        self._numbers = {entry.message.id: number for number, entry in enumerate(self.entries)}
        self._exact_tops = 0

    def _top(self, number: int) -> int:
        del self._tops[self._exact_tops + 1 :]
        for index in range(self._exact_tops, len(self.entries)):
            self._tops.append(self._tops[index] + self._height(index))
        self._exact_tops = len(self.entries)
        return self._tops[number]
