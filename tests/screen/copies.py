"""What a terminal was told to put into its clipboard, and what tmux has in its buffer."""

from __future__ import annotations

import re
from base64 import b64decode

from terminal import Terminal
from tmux import Tmux

_OSC52 = re.compile(rb"\x1b\]52;([^;]*);([A-Za-z0-9+/=]*)(?:\x07|\x1b\\)")


def sent_to(terminal: Terminal) -> list[str]:
    """The texts that the terminal was sent by OSC 52, oldest first."""
    raw = terminal.client.raw if isinstance(terminal, Tmux) else terminal.raw
    return [b64decode(found[2], validate=True).decode() for found in _OSC52.finditer(bytes(raw))]


def wait_for_copy(terminal: Terminal, text: str) -> None:
    """Wait until a text is what a paste would give: in tmux from its own buffer."""
    if isinstance(terminal, Tmux):
        terminal.wait_until(lambda: terminal.buffer == text)
    else:
        terminal.wait_until(lambda: sent_to(terminal)[-1:] == [text])
