"""One-line widgets that are drawn again only when their text changes."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget


class Line(Widget):
    """A line of text; `show` draws it if it differs from what stands there."""

    DEFAULT_CSS = "Line { height: 1; }"

    def __init__(self, content: Content | None = None, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._content = content if content is not None else Content()

    def show(self, content: Content) -> None:
        if content.is_same(self._content):
            return
        self._content = content
        self.refresh()

    def render(self) -> Content:
        return self._content

    @property
    def plain(self) -> str:
        """The text without its styles."""
        return self._content.plain
