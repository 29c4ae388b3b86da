"""Code in colour, line by line: each line is read once, whether it is streamed or part of a finished text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax

from quantchat.ui.transcript.wrap import Line

_CARRIED = 2_000
_LONGEST_LINE = 2_000


@dataclass(frozen=True, slots=True)
class PenState:
    """What the lines so far say about the next one.

    Attributes:
        stack: The states of the lexer.
        carried: Lines that one token spans up to here, such as an open comment: it is read again with more text.
    """

    stack: tuple[str, ...] = ("root",)
    carried: str = ""


FRESH = PenState()


@dataclass(frozen=True, slots=True)
class Pen:
    """Colours the lines of one language with a Pygments style; the background is left to `base`."""

    language: str
    theme: str
    base: Style

    def line(self, text: str, state: PenState) -> tuple[Line, PenState]:
        """Colour one line; return it and the state after it."""
        lexer = _lexer(self.language.lower()) if self.language else None
        if lexer is None or len(text) > _LONGEST_LINE:
            return ([Segment(text, self.base)] if text else []), state
        tokens, after = _read(lexer, state.carried + text + "\n", state)
        return self._coloured(tokens, len(state.carried), len(text)), after

    def _coloured(self, tokens: Iterable[tuple[Any, str]], skipped: int, size: int) -> Line:
        line: Line = []
        position = -skipped
        for kind, value in tokens:
            part = value[max(0, -position) : max(0, size - position)]
            position += len(value)
            if part:
                style = self.base + _style(self.theme, kind)
                if line and (line[-1].style == style or not part.strip()):
                    line[-1] = Segment(line[-1].text + part, line[-1].style)
                else:
                    line.append(Segment(part, style))
        return line


# A fence is drawn again when its answer ends or the width changes; reading its lines is most of the cost.
@lru_cache(maxsize=4096)
def remembered_line(pen: Pen, text: str, state: PenState) -> tuple[Line, PenState]:
    """Colour a line that is complete."""
    return pen.line(text, state)


def _read(lexer: Any, text: str, state: PenState) -> tuple[list[tuple[Any, str]], PenState]:
    from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer

    if not isinstance(lexer, RegexLexer):
        return [*lexer.get_tokens(text)], FRESH
    context = LexerContext(text, 0, [*state.stack])
    tokens: list[tuple[Any, str]] = []
    stacks: list[tuple[str, ...]] = []
    try:
        for _, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=context):
            tokens.append((kind, value))
            stacks.append(tuple(context.stack))
    except (TypeError, AttributeError, KeyError, IndexError, AssertionError):
        # Some lexers cannot be left and entered again between lines.
        return [*lexer.get_tokens(text)], FRESH
    return tokens, _after(tokens, stacks, state, tuple(context.stack))


def _after(
    tokens: list[tuple[Any, str]], stacks: list[tuple[str, ...]], before: PenState, stack: tuple[str, ...]
) -> PenState:
    """A last token that holds the line's end may go on in the next line: read it again from its start."""
    if not tokens or "\n" not in tokens[-1][1] or not tokens[-1][1].strip() or len(tokens[-1][1]) > _CARRIED:
        return PenState(stack)
    # While a token is handed out its change of state is still to come: this is the stack it was read with.
    return PenState(stacks[-1] if len(tokens) > 1 else before.stack, tokens[-1][1])


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any | None:
    return Syntax("", language).lexer


@lru_cache(maxsize=1024)
def _style(theme: str, token: Any) -> Style:
    if token[:1] == ("Error",):
        return Style()
    style = Syntax.get_theme(theme).get_style_for_token(token)
    return Style(color=style.color, bold=style.bold or None, italic=style.italic or None)
