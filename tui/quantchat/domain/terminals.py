"""What terminals do with a text for the clipboard, as far as the environment tells."""

from __future__ import annotations

from collections.abc import Mapping

_TAKING_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm", "contour", "rio")
_TAKING_PROGRAMS = frozenset({"WezTerm", "ghostty", "vscode", "rio", "contour"})
_DEAF_TERMS = ("linux", "dumb", "vt1", "vt2", "cons25")


def takes_text(env: Mapping[str, str]) -> bool:
    """Whether the terminal is known to put OSC 52 into its clipboard; behind tmux or screen it is not known."""
    if "TMUX" in env or "STY" in env:
        return False
    known = env.get("TERM", "").startswith(_TAKING_TERMS) or env.get("TERM_PROGRAM") in _TAKING_PROGRAMS
    return known or "WT_SESSION" in env


def is_deaf(env: Mapping[str, str]) -> bool:
    """Whether the terminal has no clipboard to send to."""
    return env.get("TERM", "").startswith(_DEAF_TERMS)
