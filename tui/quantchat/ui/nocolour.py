"""NO_COLOR: not one colour reaches the terminal; what only a colour would show is drawn reversed."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

SEEN_AT = 1.5
"""Contrast at which a background stands out of the one around it, as cursors, selections and scroll bars do."""


class NoColour(LineFilter):
    """Takes every colour out of lines and keeps bold, dim, underline and reverse.

    Textual's own filter turns colours into greys, which are colours to a terminal.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, None if style is None else _plain(style, background), control)
            for text, style, control in segments
        ]


@lru_cache(4096)
def _plain(style: Style, background: Color) -> Style:
    plain = style.without_color
    if style.meta:
        plain += Style.from_meta(style.meta)
    if _stands_out(style, background) and not style.reverse:
        plain += Style(reverse=True)
    return plain


def _stands_out(style: Style, background: Color) -> bool:
    if style.bgcolor is None or style.bgcolor.is_default:
        return False
    own = Color.from_rich_color(style.bgcolor)
    if own.ansi is not None or background.ansi is not None:
        return own.ansi != background.ansi
    return _ratio(own, background) >= SEEN_AT


def _ratio(one: Color, other: Color) -> float:
    """Contrast of two colours, WCAG 2.2."""
    dim, bright = sorted((_luminance(one), _luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: Color) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour.normalized]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
