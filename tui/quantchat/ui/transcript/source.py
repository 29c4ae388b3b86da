"""Text as it was said, and as it is shown."""

from __future__ import annotations

from quantchat.domain.text import clean


class Source:
    """One text of a message, which may grow."""

    def __init__(self, text: str = "") -> None:
        self._chunks = [text]
        self._shown: str | None = None

    @property
    def raw(self) -> str:
        """The text as it was said."""
        if len(self._chunks) > 1:
            self._chunks = ["".join(self._chunks)]
        return self._chunks[0]

    @property
    def shown(self) -> str:
        """The text without what a terminal would obey."""
        if self._shown is None:
            self._shown = clean(self.raw)
        return self._shown

    def extend(self, text: str) -> None:
        """Add text at the end, cleaned together with the line it continues: a tab stop depends on it."""
        if self._shown is not None:
            line = self._shown.rfind("\n") + 1
            self._shown = self._shown[:line] + clean(self._shown[line:] + text)
        self._chunks.append(text)

    def __bool__(self) -> bool:
        return any(self._chunks)
