"""Markdown read into a tree of blocks that know their source lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, reference
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from quantchat.ui.transcript.maths import maths

DEEPEST = 100
"""The parser drops what is nested deeper than this."""
_FURNITURE = " >"
_MOST_UNCLOSED = 300
"""Brackets left open in one paragraph: the parser looks for the end of each, and a wild model writes nothing else."""


@dataclass(slots=True)
class Node:
    """A block.

    Attributes:
        kind: The parser's name of it without `_open`, such as `paragraph` or `list_item`.
        first: Number of its first source line.
        end: Number of the source line after it.
        inline: What a paragraph, a heading or a cell says.
        number: Of the first item, if it is an ordered list.
        shown: The marker of this item is on the screen already.
        gap: A blank line comes first.
    """

    kind: str
    token: Token
    first: int
    end: int
    children: list[Node] = field(default_factory=list)
    inline: Sequence[Token] = ()
    number: int = 1
    shown: bool = False
    gap: bool = False

    def walk(self) -> Iterator[Node]:
        """The block and all blocks inside."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Source:
    """A text and its top-level blocks.

    Attributes:
        offsets: Where each line begins.
    """

    text: str
    lines: list[str]
    offsets: list[int]
    nodes: list[Node]

    def walk(self) -> Iterator[Node]:
        """All blocks, in the order in which they were written."""
        for node in self.nodes:
            yield from node.walk()

    def slice(self, node: Node) -> str:
        return self.text[self.offsets[node.first] : self.offsets[node.end]]

    def gap_before(self, node: Node) -> bool:
        """Whether a blank line was written before a block inside another."""
        return node.first > 0 and not self.lines[node.first - 1].strip(_FURNITURE)

    def is_complete(self, line: int) -> bool:
        """Whether the end of a line has been written."""
        return line < len(self.lines) - 1

    @property
    def open_nodes(self) -> int:
        """How many of the last blocks may still change: a rule may turn into an item, maths into words, of the last."""
        last = self.nodes[-1]
        begun = last.kind in ("hr", "fence") and not self.is_complete(last.first)
        return 2 if begun or last.kind == "math_block" else 1


@cache
def _parser() -> MarkdownIt:
    # With html on, `<think>` and the `<int>` of `List<int>` vanish; linkify makes a link of `setup.py`.
    parser = MarkdownIt("gfm-like", {"html": False, "linkify": False, "maxNesting": DEEPEST}).use(maths)
    parser.block.ruler.at("reference", _reference)
    parser.core.ruler.at("inline", _inline)
    return parser


def _reference(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Leave footnotes as they were written; without this rule `[^1]: word` would be an address, and vanish."""
    footnote = state.src.startswith("[^", state.bMarks[first] + state.tShift[first])
    return not footnote and reference(state, first, end, silent)


def _inline(state: StateCore) -> None:
    """Read the words of all blocks; leave those with absurdly many open brackets as they were written."""
    for token in state.tokens:
        if token.type != "inline":
            continue
        if _unclosed(token.content) > _MOST_UNCLOSED:
            token.children = _plain(token.content)
        else:
            token.children = []
            state.md.inline.parse(token.content, state.md, state.env, token.children)


def _unclosed(text: str) -> int:
    return sum(map(text.count, "[(")) - sum(map(text.count, "])"))


def _plain(text: str) -> list[Token]:
    lines = (Token("text", "", 0, content=line) for line in text.split("\n"))
    return [token for line in lines for token in (Token("softbreak", "br", 0), line)][1:]


def parse(text: str, environment: MutableMapping[str, Any]) -> Source:
    """Read `text`; link definitions are added to `environment`."""
    lines = text.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    return Source(text, lines, offsets, _tree(_parser().parse(text, environment)))


def parse_inline(text: str) -> Sequence[Token]:
    """Read `text` as the words of one paragraph."""
    return _parser().parseInline(text)[0].children or ()


def is_too_deep(node: Node) -> bool:
    """Whether the parser has dropped something inside."""
    return any(inner.token.level >= DEEPEST - 1 for inner in node.walk())


def language_of(info: str) -> str:
    """The first word of an info string."""
    return info.split(maxsplit=1)[0] if info.strip() else ""


def closes(line: str, marker: str) -> bool:
    """Whether a line ends a fence that was opened with `marker`."""
    stripped = line.strip()
    indent = len(line) - len(line.lstrip(" "))
    return indent < 4 and len(stripped) >= len(marker) and not stripped.strip(marker[0])


# The end of a text that may still become something else: `-` a rule, an item or the underline of a heading.
_MARKS = "-+*=#_~`|:$\\ "
_NUMBER = re.compile(r"\d{1,9}[.)]? *")


def undecided(text: str) -> int:
    """How many characters at the end only make sense with what follows."""
    line = text[text.rfind("\n") + 1 :]
    words = line.lstrip(_FURNITURE)
    return len(line) if not words.strip(_MARKS) or _NUMBER.fullmatch(words) else 0


def _tree(tokens: Sequence[Token]) -> list[Node]:
    top: list[Node] = []
    path: list[Node] = []
    for token in tokens:
        if token.type == "inline":
            path[-1].inline = token.children or ()
        elif token.nesting < 0:
            path.pop()
        else:
            node = _node(token)
            (path[-1].children if path else top).append(node)
            if token.nesting:
                path.append(node)
    return top


def _node(token: Token) -> Node:
    first, end = token.map or (0, 0)
    number = int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else 1
    return Node(token.type.removesuffix("_open"), token, first, end, number=number)
