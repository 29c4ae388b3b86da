"""Textual's compositor, with one fault of it mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual._compositor import Compositor

if TYPE_CHECKING:
    from textual._compositor import CompositorMap, ReflowResult
    from textual.geometry import Size
    from textual.widget import Widget


class ExactCompositor(Compositor):
    """Finds out what a layout changes by the layout before.

    Textual's own compares with the map of widgets, which whoever asks for a widget's region in between has brought up
    to date: what has gone since then stays on the screen, such as a toast, and what has come is not told its size.
    """

    def __init__(self) -> None:
        super().__init__()
        self._laid_out: CompositorMap = {}

    def reflow(self, parent: Widget, size: Size) -> ReflowResult:
        self._full_map = self._laid_out
        result = super().reflow(parent, size)
        self._laid_out = self._full_map
        return result
