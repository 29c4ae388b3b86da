"""From text to lines of styled cells, at one width and in one palette."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from quantchat.ui.transcript.palette import Palette
from quantchat.ui.transcript.wrap import wrap


class Painter:
    """A width and a palette, and plain text drawn with them.

    Attributes:
        fold_key: The key that folds and unfolds, as people write it; empty if there is none.
    """

    def __init__(self, width: int, palette: Palette, fold_key: str = "") -> None:
        self.width = max(1, width)
        self.palette = palette
        self.fold_key = fold_key

    def plain(self, text: str, style: Style) -> list[Strip]:
        """Draw text as it is, wrapped at words."""
        lines = (wrap([Segment(line, style)], self.width) for line in text.split("\n"))
        return [Strip(part) for parts in lines for part in parts]
