"""The lines of one answer while it grows, and when it is complete."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise, takewhile
from typing import Any, NamedTuple

from rich.segment import Segment

from quantchat.ui.transcript.blocks import Node, Source, parse, undecided
from quantchat.ui.transcript.cuts import Cut, find_cut, resume
from quantchat.ui.transcript.painter import Painter
from quantchat.ui.transcript.render import Carried, Memory, Rendering
from quantchat.ui.transcript.tables import MEASURED
from quantchat.ui.transcript.wrap import Line


@dataclass(frozen=True, slots=True)
class _Open:
    """Where the part that may still change begins, and how it goes on with what is settled."""

    start: int = 0
    prefix: str = ""
    path: tuple[int | None, ...] = ()
    gap: bool = False
    carried: Carried = field(default_factory=Carried)
    fresh: bool = True


class _Whole(NamedTuple):
    """Blocks at the beginning that were never cut: where they end in the text and in the lines."""

    start: int
    lines: int


class Body:
    """Lines of Markdown that grows at its end; what can no longer change is settled and not read again.

    Attributes:
        lines: What is shown now.
        kept: How many of the first lines the last text left as they were.
    """

    def __init__(self, painter: Painter) -> None:
        self.lines: list[Line] = []
        self.kept = 0
        self._settled = 0
        self._painter = painter
        self._open = _Open()
        self._memory: Memory = {}
        self._references = False
        self._whole = _Whole(0, 0)

    def feed(self, text: str) -> None:
        """Show `text`, which begins with everything that was fed before."""
        self.kept = self._settled
        end = len(text) - undecided(text)
        source = self._parse(text, end)
        if len(source.nodes) > 1 and len(source.nodes) > source.open_nodes:
            self._settle_blocks(source)
            source = self._parse(text, end)
        rows = 1 if self._open.carried.columns else MEASURED
        if source.nodes and (cut := find_cut(source, source.nodes[-1], rows=rows)):
            self._cut(source, cut)
            source = self._parse(text, end)
        self._show(self._draw(source, source.nodes))

    def finish(self, text: str) -> None:
        """Show `text` as if it had come at once."""
        with _uncollected():
            self._finish(text)

    def _finish(self, text: str) -> None:
        environment: dict[str, Any] = {}
        source = parse(text[self._whole.start :], environment)
        if (self._references or environment.get("references")) and (self._whole.start or self._memory):
            # A link may have been written long before its address.
            self._whole, self._references = _Whole(0, 0), False
            self._memory.clear()
            self._finish(text)
            return
        lines = self._lines(Rendering(source, self._painter.palette, memory=self._memory), source.nodes)
        if lines and self._whole.lines:
            lines.insert(0, [])
        self._memory.clear()
        self._open = _Open()
        self._replace(self._whole.lines, lines)

    def _replace(self, start: int, lines: list[Line]) -> None:
        """Put other lines at the end, but leave those that are there already."""
        pairs = zip(islice(self.lines, start, None), lines, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.kept = self._settled = start + same
        self.lines[self.kept :] = lines[same:]

    def _parse(self, text: str, end: int) -> Source:
        environment: dict[str, Any] = {}
        source = parse(self._open.prefix + text[self._open.start : end], environment)
        self._references |= bool(environment.get("references"))
        if source.nodes:
            resume(source.nodes[0], self._open.path, self._open.gap)
        return source

    def _settle_blocks(self, source: Source) -> None:
        """Settle all blocks but those at the end that may still change."""
        begin = self._open.start - len(self._open.prefix)
        for node, following in islice(pairwise(source.nodes), len(source.nodes) - source.open_nodes):
            whole = self._open.fresh and self._whole.start == self._open.start
            self._settle(self._draw(source, [node]))
            self._open = _Open(begin + source.offsets[following.first])
            if whole:
                self._whole = _Whole(self._open.start, self._settled)

    def _cut(self, source: Source, cut: Cut) -> None:
        """Settle the part of the last block above a cut."""
        upper = parse(source.text[: cut.end], {})
        resume(upper.nodes[0], self._open.path, self._open.gap)
        rendering = self._rendering(upper, self._memory)
        lines = self._lines(rendering, upper.nodes)
        carried = rendering.left
        if cut.joint is None:
            carried.lead = []
        else:
            carried.lead = [*carried.lead, Segment(cut.joint)] if cut.joint else carried.lead
            del lines[-1:]
        self._settle(lines)
        start = self._open.start - len(self._open.prefix) + cut.start
        self._open = _Open(start, cut.prefix, cut.path, cut.gap, carried, fresh=False)

    def _draw(self, source: Source, nodes: list[Node]) -> list[Line]:
        return self._lines(self._rendering(source), nodes)

    def _lines(self, rendering: Rendering, nodes: list[Node]) -> list[Line]:
        lines: list[Line] = []
        for node in nodes:
            drawn = rendering.block(node, self._painter.width)
            lines += [[], *drawn] if lines and drawn else drawn
        return lines

    def _rendering(self, source: Source, memory: Memory | None = None) -> Rendering:
        carried = self._open.carried
        carried = Carried(carried.lead, carried.columns, carried.pen)
        return Rendering(source, self._painter.palette, carried=carried, memory=memory)

    def _settle(self, lines: list[Line]) -> None:
        self._show(lines)
        self._settled = len(self.lines)

    def _show(self, lines: list[Line]) -> None:
        del self.lines[self._settled :]
        if lines and self.lines and self._open.fresh:
            self.lines.append([])
        self.lines += lines


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold garbage collection: it would look through all the lines again and again while many tokens are made."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
