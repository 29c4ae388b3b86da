"""The styles a transcript is drawn with; equal palettes give equal lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rich.style import Style
from textual.widget import Widget

from quantchat.ui.transcript.messages import MessageView

_SURFACES = ("user", "code")
_PARTS = (*_SURFACES, "user-bar", "label", "dim", "error", "heading", "link")
_MARKS = ("focus", "hit", "current", "below")
CLASSES = {f"transcript--{part}" for part in (*_PARTS, *_MARKS)}
CSS = """
Transcript {
    background: $background;
    color: $foreground;
    overflow-x: hidden;
    overflow-y: scroll;
    scrollbar-size-vertical: 1;
    & > .transcript--user { background: $surface; }
    & > .transcript--user-bar { color: $primary; text-style: bold; }
    & > .transcript--label { color: $text-secondary; text-style: bold; }
    & > .transcript--dim { color: $text-muted; }
    &:ansi > .transcript--dim { text-style: dim; }
    & > .transcript--error { color: $text-error; }
    & > .transcript--heading { color: $text-primary; text-style: bold; }
    & > .transcript--code { background: $surface; }
    & > .transcript--link { color: $text-accent; text-style: underline; }
    & > .transcript--focus { color: $accent; text-style: bold; }
    & > .transcript--hit { background: $warning-muted; color: $text-warning; text-style: underline; }
    & > .transcript--current { background: $background; color: $warning; text-style: bold reverse; }
    & > .transcript--below { background: $background; color: $primary; text-style: bold reverse; }
    &:ansi > .transcript--hit { background: $background; color: $warning; }
}
"""

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


class Marks(NamedTuple):
    """Styles of what is laid over lines that are painted already."""

    focus: Style
    hit: Style
    current: Style
    below: Style
    selection: Style


def read_palette(widget: Widget) -> Palette:
    """Read the styles that the style sheets give the transcript now."""
    theme = widget.app.current_theme
    styles = {part: widget.get_component_rich_style(f"transcript--{part}") for part in _PARTS}
    words = {part.replace("-", "_"): _words(style) for part, style in styles.items() if part not in _SURFACES}
    surfaces = {part: Style(bgcolor=styles[part].bgcolor) for part in _SURFACES}
    return Palette(**words, **surfaces, base=Style(), code_theme=CODE_THEMES[theme.dark, theme.ansi])


def read_marks(widget: Widget) -> Marks:
    styles = {part: widget.get_component_rich_style(f"transcript--{part}") for part in _MARKS}
    styles["focus"] = _words(styles["focus"])
    return Marks(**styles, selection=widget.screen.get_component_rich_style("screen--selection"))


def _words(style: Style) -> Style:
    """A style without its background, which the line it stands on gives."""
    return style.without_color + Style(color=style.color)
