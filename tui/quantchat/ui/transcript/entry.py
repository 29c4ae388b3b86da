"""A message of the transcript and the lines it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from quantchat.domain.text import clean
from quantchat.ui.transcript.messages import MessageView

if TYPE_CHECKING:
    from quantchat.ui.transcript.body import Body
    from quantchat.ui.transcript.painter import Painter

BAR = 2
_FURNITURE = 2
"""Lines besides the words: the label and the blank line between messages."""


class Entry:
    """One message. Its height is an estimate until its lines are wanted."""

    def __init__(self, message: MessageView) -> None:
        self.message = message
        self.lines: list[Strip] = []
        self._text = clean(message.text)
        self._chunks = [message.text]
        self._painter: Painter | None = None
        self._body: Body | None = None
        self._stale = True
        self._estimate = (0, 0)

    @property
    def source(self) -> str:
        """The message as it was said."""
        if len(self._chunks) > 1:
            self._chunks = ["".join(self._chunks)]
        return self._chunks[0]

    def replace(self, message: MessageView) -> None:
        if message.text != self.source:
            grown = message.streaming and message.text.startswith(self.source)
            self._body = self._body if grown else None
            self._text = clean(message.text)
            self._chunks = [message.text]
        if _look(message) != _look(self.message):
            self._body = None
        self.message = message
        self._change()

    def extend(self, text: str) -> None:
        """Add text at the end, cleaned together with the line it continues: a tab stop depends on it."""
        self._chunks.append(text)
        line = self._text.rfind("\n") + 1
        self._text = self._text[:line] + clean(self._text[line:] + text)
        self._change()

    def _change(self) -> None:
        self._stale = True
        self._estimate = (0, 0)

    def height(self, width: int) -> int:
        """How many lines it takes at `width`; exact once it was painted at that width."""
        if self._painter is not None and self._painter.width == width - BAR and not self._stale:
            return len(self.lines)
        if self._estimate[0] != width:
            self._estimate = (width, self._guess(max(1, width - BAR)))
        return self._estimate[1]

    def _guess(self, width: int) -> int:
        words = sum(-(-len(line) // width) or 1 for line in self._text.rstrip("\n").split("\n"))
        return words + _FURNITURE + bool(self.message.footer)

    def is_painted(self, painter: Painter) -> bool:
        """Whether the lines are up to date."""
        return painter is self._painter and not self._stale

    def paint(self, painter: Painter) -> int | None:
        """Bring the lines up to date; return the number of the first that changed, or None."""
        if painter is not self._painter:
            self._body, self.lines = None, []
        self._painter = painter
        self._stale = False
        before = self.lines
        kept, body = self._words(painter)
        self.lines = [*kept, *self._barred(body, painter), *self._footer(painter), Strip([])]
        return _first_difference(before, self.lines, len(kept))

    def _words(self, painter: Painter) -> tuple[list[Strip], list[Strip]]:
        """Lines that stay as they were, and lines of the words below them."""
        message, palette = self.message, painter.palette
        label = painter.plain(clean(message.label, newlines=False), palette.label)[:1] if message.label else []
        if message.streaming and not self._text.strip():
            return [], [*label, *painter.plain("…", palette.dim)]
        if message.role != "assistant":
            return [], [*label, *painter.plain(self._text.strip("\n"), palette.body(message))]
        return self._markdown(painter, label)

    def _markdown(self, painter: Painter, label: list[Strip]) -> tuple[list[Strip], list[Strip]]:
        from quantchat.ui.transcript.body import Body

        grown = self._body is not None
        body = self._body = self._body or Body(painter)
        if self.message.streaming:
            body.feed(self._text)
            kept = len(label) + body.kept if grown else 0
            return self.lines[:kept], (label + body.lines)[kept:]
        body.finish(self._text)
        self._body = None
        return [], label + body.lines

    def _footer(self, painter: Painter) -> Iterable[Strip]:
        if not self.message.footer:
            return ()
        words = clean(self.message.footer)
        return self._barred(painter.plain(words, painter.palette.footer(self.message)), painter)

    def _barred(self, strips: Iterable[Strip], painter: Painter) -> list[Strip]:
        glyphs, style = painter.palette.bar(self.message)
        bar = Segment(glyphs, style)
        fill = painter.palette.user if self.message.role == "user" else None
        return [_line(bar, strip, painter.width, fill) for strip in strips]


def _look(message: MessageView) -> tuple[str, str, str]:
    return message.role, message.tone, message.label


def _line(bar: Segment, strip: Strip, width: int, fill: Style | None) -> Strip:
    line = Strip([bar, *strip])
    return line if fill is None else line.extend_cell_length(width + BAR).apply_style(fill)


def _first_difference(old: list[Strip], new: list[Strip], start: int) -> int | None:
    for number in range(start, max(len(old), len(new))):
        if number >= len(old) or number >= len(new) or old[number] != new[number]:
            return number
    return None
