"""What is shown of long texts until the reader asks for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

LONG_LINES = 20
LONG_CHARACTERS = 2_000
SHOWN_LINES = 6
SHOWN_CHARACTERS = 600
PREVIEW_LINES = 3


class Piece(NamedTuple):
    """Part of a prompt; a note stands for what is folded away."""

    text: str
    is_note: bool = False


def fold_prompt(text: str) -> list[Piece]:
    """Return a prompt with a line in place of each attachment, and the first lines of what else is long."""
    if text.count("\n") < 2 and len(text) <= LONG_CHARACTERS:
        return [Piece(text)]
    from quantchat.domain.attachments import Attachment, parts

    pieces: list[Piece] = []
    for part in parts(text):
        if isinstance(part, Attachment):
            pieces.append(Piece(f"▸ {part.token}", is_note=True))
        else:
            pieces += _shorten(part)
    return pieces


def _shorten(text: str) -> list[Piece]:
    if text.count("\n") < LONG_LINES and len(text) <= LONG_CHARACTERS:
        return [Piece(text)] if text.strip("\n") else []
    lines = text.split("\n", SHOWN_LINES)
    head, hidden = "\n".join(lines[:SHOWN_LINES]), f"{lines[-1].count(chr(10)) + 1:,} more lines"
    if len(head) > SHOWN_CHARACTERS or len(lines) <= SHOWN_LINES:
        head, hidden = text[:SHOWN_CHARACTERS], f"{len(text) - SHOWN_CHARACTERS:,} more characters"
    return [Piece(head), Piece(f"▸ … {hidden}", is_note=True)]


class WordCount:
    """Counts the words of a text that grows."""

    def __init__(self) -> None:
        self._words = 0
        self._end = 0

    def feed(self, text: str) -> str:
        """Say how many words `text` has, which begins with everything that was fed before."""
        end = max(text.rfind(" "), text.rfind("\n")) + 1
        if end > self._end:
            self._words += len(text[self._end : end].split())
            self._end = end
        number = self._words + bool(text[end:].strip())
        return f"{number:,} word{'' if number == 1 else 's'}"


class GrowingLines:
    """Plain text that grows: lines that are complete are wrapped once."""

    def __init__(self, wrap: Callable[[str], list[Strip]]) -> None:
        self._wrap = wrap
        self._settled: list[Strip] = []
        self._start = 0

    def feed(self, text: str) -> list[Strip]:
        """Return the lines of `text`, which begins with everything that was fed before."""
        end = text.rfind("\n") + 1
        if end > self._start:
            self._settled += self._wrap(text[self._start : end - 1])
            self._start = end
        return [*self._settled, *(self._wrap(text[self._start :]) if self._start < len(text) else ())]


def last_lines(text: str, wrap: Callable[[str], list[Strip]]) -> list[Strip]:
    """Return the last few lines of a text, without looking at all of it."""
    return wrap("\n".join(text.rstrip().rsplit("\n", PREVIEW_LINES)[-PREVIEW_LINES:]))[-PREVIEW_LINES:]


def without_blank_end(lines: list[Strip], bar: int) -> list[Strip]:
    """Take away the last lines that hold nothing behind the bar."""
    while lines and not lines[-1].text[bar:].strip():
        lines.pop()
    return lines


def with_bar(lines: Iterable[Iterable[Segment]], bar: Strip, width: int, fill: Style | None) -> list[Strip]:
    """Put the two cells of the bar before each line, and fill the line up if it has a background of its own."""
    strips = [Strip([*bar, *line]) for line in lines]
    return strips if fill is None else [strip.extend_cell_length(width).apply_style(fill) for strip in strips]
