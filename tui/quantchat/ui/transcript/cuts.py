"""Where an open block can be cut in two, so that what is above the cut is final and never read again.

The part below the cut is a text of its own: the markers of the containers it stands in are written before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from quantchat.ui.transcript.blocks import Node, Source, closes, parse_inline

LONG_PARAGRAPH = 600
"""Characters from which on a paragraph is cut."""
_KEPT = 160
_FORCED = 2_000
_TRIES = 4
_STRIDE = 80

_MARKER = re.compile(r" {0,3}(?:[-+*]|\d{1,9}[.)])(?: {1,4}(?=[^ ])|)")
_QUOTE_MARK = re.compile(r" {0,3}> ?")
_LETTERS = r"[\u3041-\u30ff\u3400-\u9fff]"
# A new text must not begin with what would be markup there, so cut before letters alone.
_JOINT = re.compile(
    rf"(?<=[^\s\\])(?:\n[ >]*| +)(?=[^\W\d_])|(?<={_LETTERS})(?={_LETTERS})|(?<=\S{{79}}[^\W\d_])(?=[^\W\d_])"
)
# What could still open a link, code, emphasis or a formula that ends below the cut.
_UNCLOSED = re.compile(r"`|\[[^\]]*$|\]\([^)]*$|<[^>\s]*$|\*(?=\S)|(?<!\w)_(?=\S)|~~(?=\S)|\$(?=[^\s\d])|\\[(\[]")


@dataclass(frozen=True, slots=True)
class Cut:
    """A place between two parts of an open block.

    Attributes:
        end: Where the upper part ends.
        start: Where the lower one begins.
        prefix: What to write before the lower part.
        path: The blocks that the lower part stands in, outermost first: the number of the first item, for lists.
        gap: A blank line lies between the parts.
        joint: What separates the words of a paragraph that was cut within a line; None if no line was cut.
    """

    end: int
    start: int
    prefix: str = ""
    path: tuple[int | None, ...] = ()
    gap: bool = False
    joint: str | None = None


def resume(node: Node, path: tuple[int | None, ...], gap: bool) -> None:
    """Tell the blocks at the beginning of a lower part what stands above them."""
    for number in path:
        if number is not None:
            node.number = number
        node.shown = True
        if not node.children:
            return
        node = node.children[0]
    node.gap = gap


def find_cut(source: Source, node: Node, *, rows: int) -> Cut | None:
    """Return the last place where an open top-level block can be cut; a table needs so many rows above the cut."""
    return _Walk(source, rows).walk(node)


class _Walk:
    """Goes down along the last blocks of an open block."""

    def __init__(self, source: Source, rows: int) -> None:
        self._source = source
        self._rows = rows
        self._containers: list[str | None] = []
        self._path: list[int | None] = []
        self._cut: Cut | None = None

    def walk(self, node: Node) -> Cut | None:
        walk = {
            "bullet_list": self._list,
            "ordered_list": self._list,
            "blockquote": self._quote,
            "paragraph": self._paragraph,
            "fence": self._fence,
            "code_block": self._code_block,
            "table": self._table,
        }.get(node.kind)
        if walk is not None:
            walk(node)
        return self._cut

    def _list(self, node: Node) -> None:
        last = node.children[-1]
        self._mark_last(node.children, node.number)
        self._path.append(node.number + len(node.children) - 1)
        opening = self._opening(last.first)
        if opening is not None:
            self._containers.append(opening)
            self._path.append(None)
            self._children(last)

    def _quote(self, node: Node) -> None:
        self._containers.append(None)
        self._path.append(None)
        self._children(node)

    def _children(self, node: Node) -> None:
        if not node.children:
            return
        self._mark_last(node.children, None)
        self.walk(node.children[-1])

    def _mark_last(self, nodes: list[Node], number: int | None) -> None:
        """Mark the last block that will stay a block of its own whatever comes, if there are blocks above it."""
        for index in range(len(nodes) - 1, max(0, len(nodes) - 3), -1):
            if self._source.is_complete(nodes[index].first) and nodes[index].kind != "code_block":
                path = self._path if number is None else [*self._path, number + index]
                self._mark(nodes[index], tuple(path))
                return

    def _mark(self, node: Node, path: tuple[int | None, ...]) -> None:
        begin = self._source.offsets[node.first]
        start = begin + self._column(node.first)
        self._cut = Cut(begin, start, self._prefix(), path, self._source.gap_before(node))

    def _fence(self, node: Node) -> None:
        last = len(self._source.lines) - 1
        column = self._column(node.first)
        begun = [line for line in range(node.first + 1, last) if line >= last - 2]
        if not begun or closes(self._inside(begun[-1]), node.token.markup) or node.end < last:
            return
        opening = self._source.lines[node.first][column:]
        begin = self._source.offsets[last]
        self._cut = Cut(begin, begin, f"{self._prefix()}{opening}\n", tuple(self._path))

    def _code_block(self, node: Node) -> None:
        # Behind the marker of an item, the indent of the code would be read as part of the marker.
        if any(opening is not None for opening in self._containers):
            return
        for line in range(node.end - 1, max(node.first, node.end - 1 - _TRIES), -1):
            # Blank lines are part of the code only if more code comes below them.
            if all(self._inside(near).strip() for near in (line - 1, line)) and self._source.is_complete(line):
                begin = self._source.offsets[line]
                self._cut = Cut(begin, begin + self._column(line), self._prefix(), tuple(self._path))
                return

    def _table(self, node: Node) -> None:
        rows = [row for part in node.children for row in part.children]
        if len(rows) < 1 + self._rows + 2:
            return
        head, ruler = (self._inside(node.first + line) for line in (0, 1))
        begin = self._source.offsets[rows[-2].first]
        prefix = f"{self._prefix()}{head}\n{self._further()}{ruler}\n"
        self._cut = Cut(begin, begin, prefix, tuple(self._path))

    def _paragraph(self, node: Node) -> None:
        begin = self._source.offsets[node.first] + self._column(node.first)
        words = self._source.text[begin:]
        if len(words) < LONG_PARAGRAPH:
            return
        joints = [*_joints(words)]
        last = joints[0] if joints and len(words) > _FORCED else None
        if joint := next((joint for joint in joints if _is_closed(words[: joint.start()])), last):
            separator = None if joint[0].startswith("\n") else joint[0][:1]
            end, start = begin + joint.start(), begin + joint.end()
            self._cut = Cut(end, start, self._prefix(), tuple(self._path), joint=separator)

    def _opening(self, line: int) -> str | None:
        """The marker of the item that begins in a line, as wide as its content is indented."""
        marker = _MARKER.match(self._source.lines[line], self._column(line))
        if marker is None:
            return None
        return marker[0] if marker[0].endswith(" ") else marker[0] + " "

    def _column(self, line: int) -> int:
        """Where a line begins inside all its containers."""
        text, column = self._source.lines[line], 0
        for opening in self._containers:
            if opening is not None:
                column += len(opening)
            elif mark := _QUOTE_MARK.match(text, column):
                column = mark.end()
        return min(column, len(text))

    def _inside(self, line: int) -> str:
        return self._source.lines[line][self._column(line) :]

    def _prefix(self) -> str:
        return "".join("> " if opening is None else opening for opening in self._containers)

    def _further(self) -> str:
        """What a second line needs to stand in the same containers."""
        return "".join("> " if opening is None else " " * len(opening) for opening in self._containers)


def _joints(words: str) -> Iterator[re.Match[str]]:
    """Places to try, the last one first and not too close to each other."""
    latest = len(words) - _KEPT
    tried = 0
    before = latest
    for joint in reversed([*_JOINT.finditer(words, 0, latest)]):
        if joint.end() <= before and joint.start() > 0:
            yield joint
            before = joint.start() - _STRIDE
            tried += 1
        if tried == _TRIES:
            return


def _is_closed(words: str) -> bool:
    return not any(token.type == "text" and _UNCLOSED.search(token.content) for token in parse_inline(words))
