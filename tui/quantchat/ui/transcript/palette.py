"""The styles a transcript is drawn with; equal palettes give equal lines."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style

from quantchat.ui.transcript.messages import MessageView

CODE_THEMES = {
    (True, False): "github-dark",
    (False, False): "tango",
    (True, True): "ansi_dark",
    (False, True): "ansi_light",
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Styles by what they are for, and the Pygments style that suits the theme."""

    base: Style
    user: Style
    user_bar: Style
    label: Style
    dim: Style
    error: Style
    heading: Style
    code: Style
    link: Style
    code_theme: str

    def body(self, message: MessageView) -> Style:
        """Style of the words of a message that is shown as plain text."""
        if message.role == "user":
            return self.user + self.dim if message.tone == "queued" else self.user
        return self.error if message.tone == "error" else self.dim

    def bar(self, message: MessageView) -> tuple[str, Style]:
        """The two cells left of every line, told apart without colour too."""
        if message.role == "user":
            return ("┊ " if message.tone == "queued" else "▌ "), self.user_bar
        if message.tone == "error":
            return "! ", self.error
        return ("· ", self.dim) if message.role == "note" else ("  ", self.base)

    def footer(self, message: MessageView) -> Style:
        return self.error if message.tone == "error" else self.dim
