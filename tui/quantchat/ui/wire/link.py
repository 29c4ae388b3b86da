"""How good the line to the terminal is, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.color import ColorSystem

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


def colors_for(link: Link, environ: Mapping[str, str], found: ColorSystem) -> ColorSystem:
    """Return how many colours are sent, given what Textual found out about the terminal."""
    if link.few_colors:
        return min(found, ColorSystem.STANDARD)
    # GNU screen takes the parts of a 24-bit colour for codes of their own, whatever COLORTERM says around it.
    return min(found, ColorSystem.EIGHT_BIT) if _in_gnu_screen(environ) else found


def _in_gnu_screen(environ: Mapping[str, str]) -> bool:
    return "STY" in environ or (environ.get("TERM", "").startswith("screen") and "TMUX" not in environ)


def erases_with_background(environ: Mapping[str, str]) -> bool:
    """Return whether erased cells take the background that is set, as far as the environment tells."""
    # tmux does, also where it calls itself screen.
    known = "TMUX" in environ or environ.get("TERM", "").startswith(_ERASING)
    return known and not _in_gnu_screen(environ)
