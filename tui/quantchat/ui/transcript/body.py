"""The lines of one answer while it grows, and when it is complete."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from textual.strip import Strip

from quantchat.ui.transcript.blocks import Block, OpenFence, parse
from quantchat.ui.transcript.painter import Painter

_BLANK = Strip([])


class Body:
    """Lines of Markdown that grows at its end; only the last block is drawn again.

    Attributes:
        lines: What is shown now.
        kept: How many of the first lines the last text left as they were.
    """

    def __init__(self, painter: Painter) -> None:
        self.lines: list[Strip] = []
        self.kept = 0
        self._settled = 0
        self._painter = painter
        self._start = 0
        self._fence: _OpenCode | None = None
        self._known: dict[str, list[Strip]] = {}
        self._references = False

    def feed(self, text: str) -> None:
        """Show `text`, which begins with everything that was fed before."""
        before = self.lines.copy()
        self._grow(text)
        self.kept = len(list(takewhile(lambda pair: pair[0] is pair[1], zip(before, self.lines, strict=False))))

    def _grow(self, text: str) -> None:
        if self._fence is not None:
            if not self._fence.feed(text):
                self._show(self._fence.lines())
                return
            self._fence = None
        self._parse(text)

    def finish(self, text: str) -> None:
        """Show `text` as if it had come at once: a later line can change the meaning of an earlier block."""
        environment: dict[str, Any] = {}
        blocks = parse(text, environment)
        if self._references or environment.get("references"):
            self._known.clear()
        self.lines, self._settled = [], 0
        for block in blocks:
            self._settle(self._paint(block))
        self._known.clear()

    def _parse(self, text: str) -> None:
        environment: dict[str, Any] = {}
        blocks = parse(text[self._start :], environment)
        self._references |= bool(environment.get("references"))
        if not blocks:
            self._show([])
            return
        for block in blocks[:-1]:
            self._settle(self._paint(block))
        self._start += blocks[-1].start
        self._show(self._tail(blocks[-1], text))

    def _tail(self, block: Block, text: str) -> list[Strip]:
        if block.tokens[0].type != "fence":
            return self._painter.block(block)
        if (fence := block.open_fence) is None:
            return self._paint(block)
        if "\n" not in block.source:
            return []
        self._fence = _OpenCode(fence, self._painter, self._start)
        self._fence.feed(text)
        return self._fence.lines()

    def _paint(self, block: Block) -> list[Strip]:
        if block.source not in self._known:
            self._known[block.source] = self._painter.block(block)
        return self._known[block.source]

    def _settle(self, strips: list[Strip]) -> None:
        self._show(strips)
        self._settled = len(self.lines)

    def _show(self, strips: list[Strip]) -> None:
        del self.lines[self._settled :]
        if strips and self.lines:
            self.lines.append(_BLANK)
        self.lines += strips


class _OpenCode:
    """A fence without an end: each line is coloured once, when it is complete."""

    def __init__(self, fence: OpenFence, painter: Painter, start: int) -> None:
        self._fence = fence
        self._painter = painter
        self._next = start
        self._opened = False
        self._strips: list[Strip] = []
        self._partial = ""

    def feed(self, text: str) -> bool:
        """Take the lines that are complete now; return whether one of them ends the fence."""
        *complete, self._partial = text[self._next :].split("\n")
        self._next = len(text) - len(self._partial)
        if complete and not self._opened:
            self._opened = True
            del complete[0]
        if any(self._fence.closed_by(line) for line in complete):
            return True
        if complete:
            self._strips += self._painter.code("\n".join(complete), self._fence.language)
        return False

    def lines(self) -> list[Strip]:
        if not self._opened or not self._partial or self._fence.closed_by(self._partial):
            return self._strips
        return self._strips + self._painter.code(self._partial, "")
