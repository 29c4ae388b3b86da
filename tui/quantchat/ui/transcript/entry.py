"""A message of the transcript and the lines it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.strip import Strip

from quantchat.domain.text import clean
from quantchat.ui.transcript.folding import (
    GrowingLines,
    Piece,
    WordCount,
    fold_prompt,
    last_lines,
    with_bar,
    without_blank_end,
)
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.source import Source

if TYPE_CHECKING:
    from quantchat.domain.thinking import Channel
    from quantchat.ui.transcript.body import Body
    from quantchat.ui.transcript.painter import Painter

BAR = 2
_FURNITURE = 2
"""Lines besides the words: the label and the blank line between messages."""
_RULE = 2
"""Lines of a rule, with the blank one below it."""


class Parts(NamedTuple):
    """Numbers of the first line of the thinking (its header), of the words, and of what is below them."""

    thinking: int
    words: int
    end: int


class Entry:
    """One message. Its height is an estimate until its lines are wanted.

    Attributes:
        version: Changes whenever the lines do.
        handles: Numbers of the lines that say what is folded.
        own: How many of the lines are the message's; a rule may stand below them.
    """

    def __init__(self, message: MessageView, *, show_thinking: bool = False) -> None:
        self.message = message
        self.lines: list[Strip] = []
        self.parts = Parts(0, 0, 0)
        self.handles: set[int] = set()
        self.version = 0
        self.words = Source(message.text)
        self.thinking = Source(message.thinking)
        self.own = 0
        self._rule = ""
        self._show_thinking = show_thinking
        self._open: bool | None = None
        self._painter: Painter | None = None
        self._body: Body | None = None
        self._head: list[Strip] | None = None
        self._thought: GrowingLines | None = None
        self._count = WordCount()
        self._stale = True
        self._estimate = (0, 0)
        self._height = 0

    # Changes

    def replace(self, message: MessageView) -> None:
        if message.text != self.words.raw:
            grown = message.streaming and message.text.startswith(self.words.raw)
            self._body = self._body if grown else None
            self.words = Source(message.text)
        if message.thinking != self.thinking.raw:
            self.thinking, self._thought, self._count = Source(message.thinking), None, WordCount()
        if _look(message) != _look(self.message):
            self._body = None
        self.message = message
        self._change(head=True)

    def extend(self, text: str, channel: Channel = "answer") -> None:
        if channel == "thinking":
            self.thinking.extend(text)
            self._change(head=True)
            return
        first = not self.words
        self.words.extend(text)
        # The first words of the answer end the thinking, which folds then.
        self._change(head=first and bool(self.thinking))

    def _change(self, *, head: bool) -> None:
        self._stale = True
        self._estimate = (0, 0)
        if head:
            self._head = None

    def set_rule(self, words: str) -> bool:
        """Draw a line with these words below the message, without words none; say whether that is new."""
        changed, self._rule = words != self._rule, words
        if changed:
            self._change(head=False)
        return changed

    # Folds

    @property
    def foldable(self) -> bool:
        """Whether it has a part that can be shown or hidden."""
        if self.message.role == "user":
            return any(piece.is_note for piece in fold_prompt(self.words.raw))
        return bool(self.thinking)

    @property
    def is_open(self) -> bool:
        if self._open is not None:
            return self._open
        return self._show_thinking and self.message.role == "assistant"

    def set_open(self, is_open: bool | None) -> None:
        """Show or hide the foldable part; None leaves it to what holds for all messages."""
        if is_open != self._open:
            self._open = is_open
            self._change(head=True)

    def show_thinking(self, shown: bool) -> None:
        """Show or hide the thinking as in all messages."""
        self._show_thinking = shown
        if self.thinking:
            self._open = None
            self._change(head=True)

    # Lines

    def height(self, width: int) -> int:
        """How many lines it takes at `width`; exact once it was painted at that width."""
        if self._painter is not None and self._painter.width == width - BAR and not self._stale:
            return self._height
        if self._estimate[0] != width:
            self._estimate = (width, self._guess(max(1, width - BAR)))
        return self._estimate[1]

    def _guess(self, width: int) -> int:
        folded = self.message.role == "user" and not self.is_open
        text = "\n".join(piece.text for piece in fold_prompt(self.words.raw)) if folded else self.words.raw
        thought = bool(self.thinking) + (_rows(self.thinking.raw, width) if self.is_open and self.thinking else 0)
        return _rows(text, width) + thought + self._furniture + bool(self._notes())

    @property
    def _furniture(self) -> int:
        return _FURNITURE + (_RULE if self._rule else 0)

    def is_painted(self, painter: Painter) -> bool:
        """Whether the lines are up to date."""
        return painter is self._painter and not self._stale and bool(self.lines)

    def forget(self) -> None:
        """Drop the lines but not their number, unless words are still coming."""
        if not self.message.streaming:
            self.lines, self._head, self._thought = [], None, None

    def paint(self, painter: Painter) -> int | None:
        """Bring the lines up to date; return the number of the first that changed, or None."""
        if painter is not self._painter:
            self._body = self._head = self._thought = None
            self.lines = []
        self._painter = painter
        self._stale = False
        self.version += 1
        before = self.lines
        head = self._head = self._head or self._paint_head(painter)
        steady = self.parts.words == len(head) and before[: len(head)] == head
        words, settled = self._paint_words(painter)
        kept = len(head) + settled if steady and settled else 0
        start = [*before[:kept], *self._barred(words[settled:], painter)] if kept else []
        lines = start or [*head, *self._barred(words, painter)]
        self.parts = self.parts._replace(words=len(head), end=len(lines))
        lines = [*lines, *self._paint_footer(painter), Strip([])]
        self.own = len(lines)
        self.lines = [*lines, *self._paint_rule(painter)]
        self._height = len(self.lines)
        return _first_difference(before, self.lines, kept)

    def _paint_head(self, painter: Painter) -> list[Strip]:
        """The label, and what the model thought."""
        message, palette = self.message, painter.palette
        label = painter.plain(clean(message.label, newlines=False), palette.label)[:1] if message.label else []
        head = self._barred(label, painter)
        self.handles = set()
        self.parts = self.parts._replace(thinking=len(head))
        if self.thinking.shown.strip():
            self.handles.add(len(head))
            head += self._paint_thinking(painter)
        return head

    def _paint_thinking(self, painter: Painter) -> list[Strip]:
        text, under_way = self.thinking.shown, self.message.streaming and not self.words
        dim = painter.palette.dim

        def wrap(part: str) -> list[Strip]:
            return with_bar(painter.plain(part, dim), Strip([Segment("┆ ", dim)]), painter.width + BAR, None)

        if self.is_open:
            self._thought = self._thought or GrowingLines(wrap)
            header, lines = "▾ thinking", without_blank_end(self._thought.feed(text.lstrip("\n")), BAR)
            lines += [Strip([])] if self.words else []
        elif under_way:
            header, lines = f"▸ thinking, {self._count.feed(text)}", last_lines(text, wrap)
        else:
            header, lines = f"▸ thought for {self._count.feed(text)}", []
        return [*self._barred(painter.plain(header, dim)[:1], painter), *lines]

    def _paint_words(self, painter: Painter) -> tuple[Sequence[Iterable[Segment]], int]:
        """The lines of the words, and how many of the first are as they were."""
        message, palette = self.message, painter.palette
        if message.streaming and not self.words.shown.strip():
            return ([] if self.thinking else painter.plain("…", palette.dim)), 0
        if message.role == "assistant":
            return self._paint_markdown(painter)
        if message.role == "user":
            return self._paint_prompt(painter), 0
        return painter.plain(self.words.shown.strip("\n"), palette.body(message)), 0

    def _paint_prompt(self, painter: Painter) -> list[Strip]:
        palette, pieces = painter.palette, fold_prompt(self.words.raw)
        key = painter.fold_key or "a click"
        if self.is_open and any(piece.is_note for piece in pieces):
            pieces = [Piece(self.words.raw), Piece("▾", is_note=True)]
        lines: list[Strip] = []
        for text, is_note in pieces:
            if is_note:
                self.handles.add(len(self._head or ()) + len(lines))
                note = f"{text} {key} folds this" if self.is_open else f"{text}, {key} shows all"
                lines += painter.plain(clean(note), palette.user + palette.dim)[:1]
            else:
                lines += painter.plain(clean(text).strip("\n"), palette.body(self.message))
        return lines

    def _paint_markdown(self, painter: Painter) -> tuple[Sequence[Iterable[Segment]], int]:
        from quantchat.ui.transcript.body import Body

        grown = self._body is not None
        body = self._body = self._body or Body(painter)
        if self.message.streaming:
            body.feed(self.words.shown)
            return body.lines, body.kept if grown else 0
        body.finish(self.words.shown)
        self._body = None
        return body.lines, body.kept if grown else 0

    def _notes(self) -> list[str]:
        return [clean(note) for note in (self.message.footer, *self.message.figures) if note]

    def _paint_footer(self, painter: Painter) -> list[Strip]:
        notes, style = self._notes(), painter.palette.footer(self.message)
        while len(notes) > 1 and len(painter.plain(" · ".join(notes), style)) > 1:
            notes.pop()
        return self._barred(painter.plain(" · ".join(notes), style), painter) if notes else []

    def _paint_rule(self, painter: Painter) -> list[Strip]:
        if not self._rule:
            return []
        width, words = painter.width + BAR, f" {self._rule} "
        rule = set_cell_size(words.center(width, "─"), width)
        return [Strip([Segment(rule, painter.palette.dim)]), Strip([])]

    def _barred(self, lines: Iterable[Iterable[Segment]], painter: Painter) -> list[Strip]:
        glyphs, style = painter.palette.bar(self.message)
        fill = painter.palette.user if self.message.role == "user" else None
        return with_bar(lines, Strip([Segment(glyphs, style)]), painter.width + BAR, fill)


def _look(message: MessageView) -> tuple[str, str, str]:
    return message.role, message.tone, message.label


def _rows(text: str, width: int) -> int:
    return sum(-(-len(line) // width) or 1 for line in text.rstrip("\n").split("\n"))


def _first_difference(old: list[Strip], new: list[Strip], start: int) -> int | None:
    for number in range(start, max(len(old), len(new))):
        if number >= len(old) or number >= len(new):
            return number
        if old[number] is not new[number] and old[number] != new[number]:
            return number
    return None
