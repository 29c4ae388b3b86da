"""Theme files become Textual themes."""

from __future__ import annotations

import msgspec
from textual.theme import Theme

from quantchat import paths
from quantchat.errors import ErrorReport
from quantchat.store.themes import ThemeFile, load_themes

DEFAULT_THEME = "quantchat-dark"


def textual_theme(file: ThemeFile) -> Theme:
    """Make a Textual theme of a validated theme file."""
    return Theme(**msgspec.structs.asdict(file))


def read_themes() -> tuple[dict[str, Theme], list[ErrorReport]]:
    """Read shipped and user themes; broken ones are reported and left out."""
    files, problems = load_themes(paths.shipped_themes_dir(), paths.user_themes_dir())
    return {name: textual_theme(file) for name, file in files.items()}, problems
