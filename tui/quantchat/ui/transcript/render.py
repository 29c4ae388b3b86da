"""Blocks of Markdown drawn as lines, one small function for each kind of block."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

from markdown_it.rules_block.table import escapedSplit
from rich.segment import Segment
from rich.style import Style

from quantchat.ui.transcript.blocks import Node, Source, is_too_deep, language_of
from quantchat.ui.transcript.code import FRESH, Pen, PenState, remembered_line
from quantchat.ui.transcript.inline import one_line, written
from quantchat.ui.transcript.palette import Palette
from quantchat.ui.transcript.tables import MEASURED, Columns, columns_of, head_lines, row_lines, stacked_lines
from quantchat.ui.transcript.wrap import Line, fold, wrap

Memory = dict[tuple[Hashable, ...], list[Line]]

NARROWEST = 12
"""Where nesting leaves fewer cells than this, blocks are no longer indented."""
_TASK = re.compile(r"\[([ xX])\](?= )")
_BOLD, _UNDERLINED = Style(bold=True), Style(underline=True)


@dataclass(slots=True)
class Carried:
    """What an open block hands on when its first part is settled.

    Attributes:
        lead: The beginning of the line that an open paragraph goes on with.
        columns: Of an open table, whose head is on the screen.
        pen: The colours an open fence goes on with.
    """

    lead: Line = field(default_factory=list)
    columns: Columns | None = None
    pen: PenState = FRESH


class Rendering:
    """One pass over blocks; `left` holds what the last of them would hand on.

    `memory` gives pieces that were drawn before, at the same width, and takes the new ones.
    """

    def __init__(
        self, source: Source, palette: Palette, *, carried: Carried | None = None, memory: Memory | None = None
    ) -> None:
        self._source = source
        self._palette = palette
        self._carried = carried or Carried()
        self._memory = memory
        self.left = Carried()

    def block(self, node: Node, width: int) -> list[Line]:
        """Draw a top-level block, without blank lines around it."""
        if is_too_deep(node):
            return self._verbatim(self._source.slice(node), width, self._palette.base)
        return self._block(node, width, self._palette.base)

    def _remembered(self, draw: Callable[[], list[Line]], *key: Hashable) -> list[Line]:
        if self._memory is None:
            return draw()
        if key not in self._memory:
            self._memory[key] = draw()
        return self._memory[key]

    def _block(self, node: Node, width: int, style: Style) -> list[Line]:
        return _RENDERERS.get(node.kind, Rendering._unknown)(self, node, width, style)

    def _blocks(self, nodes: Sequence[Node], width: int, style: Style) -> list[Line]:
        lines: list[Line] = []
        for number, node in enumerate(nodes):
            if node.gap or (number and self._source.gap_before(node)):
                lines.append([])
            lines += self._block(node, width, style)
        return lines

    def _paragraph(self, node: Node, width: int, style: Style) -> list[Line]:
        first, *rest = written(node.inline, style, self._palette)
        lead, self._carried.lead = self._carried.lead, []
        lines = [part for runs in ([*lead, *first], *rest) for part in wrap(runs, width)]
        self.left.lead = lines[-1]
        return lines

    def _heading(self, node: Node, width: int, style: Style) -> list[Line]:
        style += self._palette.heading + (_UNDERLINED if node.token.tag == "h1" else Style())
        return [part for runs in written(node.inline, style, self._palette) for part in wrap(runs, width)]

    def _rule(self, _node: Node, width: int, _style: Style) -> list[Line]:
        return [[Segment("─" * width, self._palette.dim)]]

    def _code(self, node: Node, width: int, _style: Style) -> list[Line]:
        base = self._palette.base + self._palette.code
        pen = Pen(language_of(node.token.info), self._palette.code_theme, base)
        state, self._carried.pen = self._carried.pen, FRESH
        draw = Pen.line if self._memory is None else remembered_line
        lines: list[Line] = []
        for text in node.token.content.removesuffix("\n").split("\n") if node.token.content else ():
            runs, state = draw(pen, text, state)
            lines += (_on_surface(part, width, base) for part in fold(runs, width - 2))
        self.left.pen = state
        return lines

    def _maths(self, node: Node, width: int, style: Style) -> list[Line]:
        return self._verbatim(node.token.content, width, style)

    def _quote(self, node: Node, width: int, style: Style) -> list[Line]:
        style += self._palette.dim
        if width - 2 < NARROWEST:
            return self._blocks(node.children, width, style)
        bar = Segment("│ ", self._palette.dim)
        return [[bar, *line] for line in self._blocks(node.children, width - 2, style)]

    def _list(self, node: Node, width: int, style: Style) -> list[Line]:
        lines: list[Line] = []
        for number, item in enumerate(node.children):
            if item.gap or (number and self._source.gap_before(item)):
                lines.append([])
            ordered = node.kind == "ordered_list"
            marker = f"{node.number + number:>2}{item.token.markup} " if ordered else "• "
            if item.shown:
                lines += self._item(item, marker, width, style)
            else:
                draw = partial(self._item, item, marker, width, style)
                lines += self._remembered(draw, self._source.slice(item), item.token.level, marker, width, style)
        return lines

    def _item(self, item: Node, marker: str, width: int, style: Style) -> list[Line]:
        _tick(item)
        indent = len(marker)
        first = [] if item.shown else [Segment(marker, self._palette.label)]
        if width - indent < NARROWEST:
            return [*(wrap(first, width) if first else []), *self._blocks(item.children, width, style)]
        margin = Segment(" " * indent)
        lines = [[margin, *line] if line else line for line in self._blocks(item.children, width - indent, style)]
        if first:
            lines[:1] = [[*first, *(lines[0][1:] if lines else ())]]
        return lines

    def _table(self, node: Node, width: int, style: Style) -> list[Line]:
        head, *rows = [row for part in node.children for row in part.children]
        columns, self._carried.columns = self._carried.columns, None
        if columns is not None:
            self.left.columns = columns
            return self._rows(rows, columns, width, style)
        measured = [self._cells(row, style) for row in rows[:MEASURED]]
        columns = columns_of(self._heads(head, style), [*map(_align, head.children)], measured, width)
        self.left.columns = columns
        lines = head_lines(columns, self._palette.dim)
        lines += self._rows(rows if rows or lines else [head], columns, width, style)
        return lines if lines[0] else lines[1:]

    def _rows(self, rows: list[Node], columns: Columns, width: int, style: Style) -> list[Line]:
        lines: list[Line] = []
        for row in rows:
            draw = partial(self._row, row, columns, width, style)
            lines += self._remembered(draw, self._source.lines[row.first], columns, width, style)
        return lines

    def _row(self, row: Node, columns: Columns, width: int, style: Style) -> list[Line]:
        cells = self._cells(row, style)
        if columns.widths is None:
            return [[], *stacked_lines(cells, columns, width)]
        return row_lines(cells, columns, self._palette.dim)

    def _heads(self, row: Node, style: Style) -> list[Line]:
        return [one_line(cell.inline, style + _BOLD, self._palette) for cell in row.children]

    def _cells(self, row: Node, style: Style) -> list[Line]:
        cells = [one_line(cell.inline, style, self._palette) for cell in row.children]
        cells[-1] += [Segment(f" │ {cell.strip()}", style) for cell in self._surplus(row)]
        return cells

    def _surplus(self, row: Node) -> list[str]:
        """Cells beyond the last column, which the parser drops."""
        line = self._source.lines[row.first]
        count = len(row.children)
        if line.count("|") <= count:
            return []
        cells = escapedSplit(line.strip(" >"))
        return cells[count + (not cells[0]) : len(cells) - (not cells[-1])]

    def _unknown(self, node: Node, width: int, style: Style) -> list[Line]:
        return self._verbatim(self._source.slice(node), width, style)

    def _verbatim(self, text: str, width: int, style: Style) -> list[Line]:
        lines = text.rstrip("\n").split("\n")
        return [part for line in lines for part in wrap([Segment(line, style)], width)]


_RENDERERS: dict[str, Callable[[Rendering, Node, int, Style], list[Line]]] = {
    "paragraph": Rendering._paragraph,
    "heading": Rendering._heading,
    "hr": Rendering._rule,
    "fence": Rendering._code,
    "code_block": Rendering._code,
    "math_block": Rendering._maths,
    "blockquote": Rendering._quote,
    "bullet_list": Rendering._list,
    "ordered_list": Rendering._list,
    "table": Rendering._table,
}


def _on_surface(line: Line, width: int, base: Style) -> Line:
    """One cell to spare on both sides, on a ground that reaches the right edge."""
    if width < 3:
        return line
    spare = width - 1 - sum(part.cell_length for part in line)
    return [Segment(" ", base), *line, Segment(" " * spare, base)]


def _tick(item: Node) -> None:
    """Show the box of a task."""
    if item.shown or not item.children or not item.children[0].inline:
        return
    first, *rest = item.children[0].inline
    if first.type == "text" and (box := _TASK.match(first.content)):
        ticked = "☐" if box[1] == " " else "☑"
        item.children[0].inline = [first.copy(content=ticked + first.content[box.end() :]), *rest]


def _align(cell: Node) -> str:
    return str(cell.token.attrs.get("style", "")).removeprefix("text-align:")
