"""Code in colour: whole texts, and single lines while a fence is still open."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

# Above this many characters colour is not worth the pause: Pygments takes 6 ms for each 1,000 tokens.
LONGEST = 100_000


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any | None:
    return Syntax("", language).lexer


@lru_cache(maxsize=1024)
def _style(theme: str, token: Any) -> Style:
    style = Syntax.get_theme(theme).get_style_for_token(token)
    return Style(color=style.color, bold=style.bold or None, italic=style.italic or None)


def highlight(code: str, language: str, theme: str, base: Style) -> Text:
    """Colour `code` with a Pygments style; its background is left to `base`."""
    text = Text(code, style=base, end="")
    lexer = _lexer(language.lower()) if language and len(code) <= LONGEST else None
    if lexer is None:
        return text
    position = 0
    for token, value in lexer.get_tokens(code):
        if value.strip():
            text.stylize(_style(theme, token), position, position + len(value))
        position += len(value)
    return text
