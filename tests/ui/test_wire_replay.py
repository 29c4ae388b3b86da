"""Random frames through Textual's own writing and through ours, into two terminals; the screens must be the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Size
from textual.strip import Strip

from quantchat.ui.wire.hook import _take
from quantchat.ui.wire.painter import Painter

CONSOLE = Console(color_system="truecolor", force_terminal=True)
STYLES = [
    None,
    *map(
        Style.parse,
        [
            "#e0e0e0 on #101216",
            "bold #e0e0e0 on #101216",
            "italic #88c0d0 on #101216",
            "#88c0d0 on #202530",
            "underline #88c0d0 on #202530",
            "reverse #88c0d0 on #202530",
            "strike red on blue",
            "bold italic underline white",
            "on #202530",
            "default on default",
            "dim #777777 on #101216",
        ],
    ),
]
WORDS = [
    "lighthouse",
    "a",
    "=",
    "x += 1",
    " ",
    "      ",
    " " * 30,
    "│",
    "─" * 9,
    "漢字かな",
    "한국어",
    "é",
    "e\u0301a",
    "🚀",
    "naïve",
    "日本 go",
]
SIZES = [(40, 12), (23, 9), (64, 14)]


@dataclass
class Frame:
    """What Textual would write next, and on which size of screen."""

    size: tuple[int, int]
    update: ChopsUpdate | LayoutUpdate


class Show:
    """A screen of two columns; lines of the right one change, or it scrolls; now and then the size changes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._begin()

    def frames(self) -> Iterator[Frame]:
        yield self._whole()
        for _ in range(self._random.randint(1, 8)):
            yield self._random.choice([self._partly, self._partly, self._scrolled, self._scrolled, self._anew])()

    def _begin(self) -> None:
        self._size = width, height = self._random.choice(SIZES)
        self._cut = self._random.choice([0, 8])
        self._left = [self._line(self._cut) for _ in range(height)]
        self._right = [self._line(width - self._cut) for _ in range(height)]

    def _line(self, width: int) -> Strip:
        pick = self._random.choice
        strip = Strip([Segment(pick(WORDS), pick(STYLES)) for _ in range(self._random.randint(0, 6))])
        return strip.crop(0, width).adjust_cell_length(width, pick(STYLES))

    def _anew(self) -> Frame:
        self._begin()
        return self._whole()

    def _whole(self) -> Frame:
        strips = [[left, right] for left, right in zip(self._left, self._right, strict=True)]
        return Frame(self._size, LayoutUpdate(strips, Size(*self._size).region))

    def _partly(self) -> Frame:
        width, height = self._size
        rows = sorted(self._random.sample(range(height), self._random.randint(1, 5)))
        for y in rows:
            self._right[y] = self._line(width - self._cut)
        return self._chops(rows)

    def _scrolled(self) -> Frame:
        width, height = self._size
        top, bottom = self._random.randint(0, 2), height - self._random.randint(0, 2)
        fresh = [self._line(width - self._cut) for _ in range(self._random.randint(1, 3))]
        block = self._right[top:bottom]
        moved = [*block[len(fresh) :], *fresh] if self._random.random() < 0.5 else [*fresh, *block[: -len(fresh)]]
        self._right[top:bottom] = moved
        return self._chops(range(top, bottom))

    def _chops(self, rows: Iterable[int]) -> Frame:
        width, cut = self._size[0], self._cut
        pieces = [{0: a, cut: b} if cut else {0: b} for a, b in zip(self._left, self._right, strict=True)]
        ends = [[cut, width] if cut else [width]] * len(pieces)
        return Frame(self._size, ChopsUpdate(pieces, [(y, cut, width) for y in rows], ends))


class Glass:
    """A terminal that is fed escape sequences."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.Stream(self.screen)
        self.feed("\x1b[?7l")

    def feed(self, text: str) -> None:
        self._stream.feed(text.replace("\n", "\r\n"))

    def resize(self, size: tuple[int, int]) -> None:
        self.screen.resize(size[1], size[0])

    def cells(self) -> Iterator[list[tuple[object, ...]]]:
        for y in range(self.screen.lines):
            yield [_look(self.screen.buffer[y][x]) for x in range(self.screen.columns)]


def _look(cell: pyte.screens.Char) -> tuple[object, ...]:
    """What can be seen of a cell: the colour of the ink, bold and slant of a space cannot."""
    marks = (cell.underscore, cell.strikethrough, cell.reverse)
    if cell.data == " " and not any(marks):
        return (" ", cell.bg)
    return (cell.data, cell.fg, cell.bg, cell.bold, cell.italics, *marks)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), erases=st.booleans(), dropped=st.sets(st.integers(1, 8)))
def test_same_screen(seed: int, erases: bool, dropped: set[int]) -> None:
    """Also when frames are left out while the terminal is busy."""
    frames = list(Show(Random(seed)).frames())
    size = frames[0].size
    plain, ours = Glass(size), Glass(size)
    painter = Painter(erases=erases)
    for number, frame in enumerate(frames):
        if frame.size != size:
            size = frame.size
            plain.resize(size)
            ours.resize(size)
        plain.feed(frame.update.render_segments(CONSOLE))
        _take(painter, frame.update, Size(*size))
        if number in dropped and number < len(frames) - 1 and frames[number + 1].size == size:
            continue
        ours.feed(painter.draw((0, 0)))
        for y, (wanted, got) in enumerate(zip(plain.cells(), ours.cells(), strict=True)):
            assert got == wanted, f"frame {number}, row {y}"
        assert (ours.screen.cursor.y, ours.screen.cursor.x) == (0, 0)
