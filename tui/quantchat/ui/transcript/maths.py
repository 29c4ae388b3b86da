r"""LaTeX kept as it was written: `$x_1$`, `$$…$$`, `\(…\)` and `\[…\]` are no place for emphasis or escapes."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

_CLOSING = {"$$": "$$", "\\[": "\\]"}
_DOLLARS = re.compile(r"\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?!\d)|\$\$(?!\$).{1,4000}?\$\$", re.DOTALL)
_BRACKETS = re.compile(r"\\\(.{0,4000}?\\\)|\\\[.{0,4000}?\\\]", re.DOTALL)
_OPENED = re.compile(r"\\[(\[]")


def maths(parser: MarkdownIt) -> None:
    """Teach a parser the tokens `math_block` and `math_inline`; their content is the source."""
    parser.block.ruler.before("fence", "math_block", _block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "math_inline", _inline)


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    opening = _line(state, first)[:2]
    if opening not in _CLOSING or state.is_code_block(first):
        return False
    last = _last_line(state, first, end, _CLOSING[opening])
    if last is None:
        return False
    if not silent:
        token = state.push("math_block", "", 0)
        token.map = [first, last + 1]
        token.content = state.getLines(first, last + 1, state.blkIndent, False)
        state.line = last + 1
    return True


def _last_line(state: StateBlock, first: int, end: int, closing: str) -> int | None:
    """The line that ends with `closing`, or the end of the text if that may still come."""
    for number in range(first, end):
        line = _line(state, number)
        if not line or state.sCount[number] < state.blkIndent:
            return None
        rest = line[2:] if number == first else line
        if closing in rest:
            return number if rest.rstrip(" .,;").endswith(closing) and rest.count(closing) == 1 else None
    return end - 1


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _inline(state: StateInline, silent: bool) -> bool:
    character = state.src[state.pos]
    if character not in "$\\":
        return False
    pattern = _DOLLARS if character == "$" else _BRACKETS
    found = pattern.match(state.src, state.pos, state.posMax) or _OPENED.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("math_inline", "", 0).content = found[0]
    state.pos = found.end()
    return True
