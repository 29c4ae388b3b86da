"""How good the line to the terminal is, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantchat.store.settings import LinkSetting

# Terminals that show the background that is set where they erase (`bce`). GNU screen does not, and says so by its TERM.
_ERASING = ("xterm", "tmux", "alacritty", "foot", "linux", "konsole", "ghostty", "wezterm", "rxvt", "vte", "mintty")


@dataclass(frozen=True)
class Link:
    """What the program allows itself on a line.

    Attributes:
        flush_hz: How often streamed text is shown, per second.
        status_hz: How often the figures beside it are.
        few_colors: Whether colours are reduced to sixteen: their sequences are a fifth as long.
    """

    name: str
    flush_hz: float
    status_hz: float
    few_colors: bool = False


LINKS = {
    "local": Link("local", flush_hz=20, status_hz=4),
    "ssh": Link("ssh", flush_hz=10, status_hz=2),
    "slow": Link("slow", flush_hz=5, status_hz=1, few_colors=True),
}


def choose_link(wanted: LinkSetting, environ: Mapping[str, str]) -> Link:
    """Return the link that the user named, or the one that the environment tells of."""
    if wanted != "auto":
        return LINKS[wanted]
    return LINKS["ssh" if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY") else "local"]


def erases_with_background(environ: Mapping[str, str]) -> bool:
    """Return whether erased cells take the background that is set, as far as the environment tells."""
    return environ.get("TERM", "").startswith(_ERASING) and "STY" not in environ
