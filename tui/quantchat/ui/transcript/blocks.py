"""Markdown cut at its top-level blocks, so that a block that is finished is never rendered again."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FENCE = re.compile(r"^ {0,3}(?P<marker>`{3,}|~{3,})[ ]*(?P<info>[^\n]*)")

DEEPEST = 100
"""The parser drops what is nested deeper than this."""
_INDENT = {"blockquote_open": 4, "list_item_open": 5, "blockquote_close": -4, "list_item_close": -5}
_NARROWEST = 8
_CELL = 4


@dataclass(frozen=True, slots=True)
class Block:
    """A top-level block.

    Attributes:
        start: Offset of its first line in the text that was parsed.
        source: Its lines, with their ends.
    """

    start: int
    source: str
    tokens: tuple[Token, ...]

    def fits(self, width: int) -> bool:
        """Whether Rich can draw it: it drops words for which nesting or columns leave no room."""
        indents = accumulate(_INDENT.get(token.type, 0) for token in self.tokens)
        columns = sum(token.type == "th_open" for token in self.tokens)
        deepest = max(token.level for token in self.tokens)
        indent = max(indents, default=0)
        return deepest < DEEPEST - 1 and columns * _CELL <= width and (not indent or indent + _NARROWEST <= width)

    @property
    def open_fence(self) -> OpenFence | None:
        """What a fence needs to be closed, if this is one whose closing line has not come."""
        if len(self.tokens) != 1 or self.tokens[0].type != "fence":
            return None
        opening = _FENCE.match(self.source)
        if opening is None:
            return None
        fence = OpenFence(opening["marker"], opening["info"])
        lines = self.source.rstrip("\n").split("\n")
        return None if len(lines) > 1 and fence.closed_by(lines[-1]) else fence


@dataclass(frozen=True, slots=True)
class OpenFence:
    """The first line of a fence."""

    marker: str
    info: str

    @property
    def language(self) -> str:
        return language_of(self.info)

    def closed_by(self, line: str) -> bool:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip(" "))
        return indent < 4 and len(stripped) >= len(self.marker) and not stripped.strip(self.marker[0])


def language_of(info: str) -> str:
    """The first word of an info string."""
    return info.split(maxsplit=1)[0] if info.strip() else ""


@cache
def _parser() -> MarkdownIt:
    # With html on, `<think>` and the `<int>` of `List<int>` vanish; linkify makes a link of `setup.py`.
    return MarkdownIt("gfm-like", {"html": False, "linkify": False, "maxNesting": DEEPEST})


def parse(text: str, environment: MutableMapping[str, Any]) -> list[Block]:
    """Cut `text` into its top-level blocks; link definitions are added to `environment`."""
    lines = text.split("\n")
    offsets = _offsets(lines)
    return [
        Block(offsets[first], text[offsets[first] : offsets[last]], tokens)
        for first, last, tokens in _groups(_parser().parse(text, environment))
    ]


def _offsets(lines: list[str]) -> list[int]:
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    return offsets


def _groups(tokens: list[Token]) -> Iterator[tuple[int, int, tuple[Token, ...]]]:
    group: list[Token] = []
    for token in tokens:
        group.append(token)
        if token.level == 0 and token.nesting <= 0:
            first, last = group[0].map or (0, 0)
            yield first, last, tuple(group)
            group = []
