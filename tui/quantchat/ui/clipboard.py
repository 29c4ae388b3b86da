"""Text on its way to the clipboard: tmux's buffer, the terminal (OSC 52) or a file, and words that say which."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from textual.app import App

from quantchat import paths
from quantchat.domain.memory import format_bytes
from quantchat.domain.terminals import is_deaf, takes_text
from quantchat.errors import StorageError
from quantchat.store.atomic import write_atomic
from quantchat.store.settings import ClipboardSetting

LIMIT = 74_994
"""Bytes of text in one sequence: several terminals drop or cut sequences above 100,000 bytes, base64 included."""
SCREEN_CHUNK = 250
"""GNU screen drops a passed-through string that its buffer cannot hold: 256 bytes in old versions, 768 in new ones."""
TMUX_SECONDS = 3.0


class Ways(NamedTuple):
    """Where a text goes when tmux does not take it."""

    terminal: bool
    file: bool


def send(app: App[Any], text: str, what: str) -> None:
    """Send a text as it was written where the user can paste it from, and say where it went.

    Args:
        what: Names the text in the notice, such as `the last answer`.
    """
    data = as_bytes(text)
    if not data:
        app.notify("There is nothing to copy", severity="warning")
        return
    # What Textual's own paste key takes.
    app._clipboard = data.decode()
    # The last copy wins: one that still waits for tmux must not overwrite it.
    app.run_worker(_deliver(app, data, what), group="clipboard", exclusive=True)


def as_bytes(text: str) -> bytes:
    """Encode a text; what no clipboard can hold (NUL, lone surrogates) is dropped or replaced."""
    return text.replace("\0", "").encode("utf-8", "replace")


def ways(setting: ClipboardSetting, env: Mapping[str, str], size: int) -> Ways:
    """Choose between the terminal and a file; both where it is not known whether the terminal takes text."""
    if setting == "file" or size > LIMIT:
        return Ways(terminal=False, file=True)
    if setting == "osc52":
        return Ways(terminal=True, file=False)
    if is_deaf(env):
        return Ways(terminal=False, file=True)
    return Ways(terminal=True, file=not takes_text(env))


def sequence(data: bytes, env: Mapping[str, str]) -> str:
    """Return the OSC 52 sequence, wrapped where GNU screen would drop it."""
    plain = f"\x1b]52;c;{b64encode(data).decode()}\x07"
    if "STY" not in env or "TMUX" in env:
        return plain
    pieces = (plain[start : start + SCREEN_CHUNK] for start in range(0, len(plain), SCREEN_CHUNK))
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)


async def _deliver(app: App[Any], data: bytes, what: str) -> None:
    setting = _setting(app)
    described = f"{what} ({_count(data)})"
    if setting == "tmux" or (setting == "auto" and "TMUX" in os.environ):
        reached = await _to_tmux(data)
        if reached:
            app.notify(f"Sent {described} to {reached}")
            return
    where = ways(setting, os.environ, len(data))
    if where.terminal and app._driver is not None:
        app._driver.write(sequence(data, os.environ))
    try:
        path = await asyncio.to_thread(_to_file, data) if where.file else None
    except StorageError as error:
        app.notify(error.report.sentence(), severity="error")
        path = None
    if where.terminal or path:
        app.notify(words(described, len(data), setting, path, terminal=where.terminal))


def _setting(app: App[Any]) -> ClipboardSetting:
    from quantchat.ui.app import QuantchatApp

    assert isinstance(app, QuantchatApp)
    return app.desk.settings.clipboard


def words(described: str, size: int, setting: ClipboardSetting, path: Path | None, *, terminal: bool) -> str:
    """Say what was done, never more: no terminal tells whether it took a text."""
    if terminal:
        also = f"; if it does not arrive, it is in {path}" if path else ""
        return f"Sent {described} to the terminal (OSC 52){also}"
    if setting == "file":
        return f"Written to {path}: {described}"
    reason = f"Too large for the terminal ({format_bytes(size)})" if size > LIMIT else "This terminal takes no text"
    return f"{reason}: {described} written to {path}"


def _count(data: bytes) -> str:
    number = len(data.decode())
    return f"{number:,} character{'' if number == 1 else 's'}"


def _to_file(data: bytes) -> Path:
    path = paths.clipboard_file()
    write_atomic(path, data)
    return path


async def _to_tmux(data: bytes) -> str:
    """Put a text into tmux's buffer, and through it into the terminal's clipboard; return what was reached.

    By tmux's own command: tmux's default ignores the OSC 52 sequences of the programs in it.
    """
    if len(data) <= LIMIT:
        # In the same call, so that the answer is about the client that -w wrote to.
        ask = (";", "display-message", "-p", "#{set-clipboard} #{client_termfeatures}")
        said = await _tmux(data, "load-buffer", "-w", "-", *ask)
        if said is not None:
            passed = "clipboard" in said and not said.startswith("off")
            return "tmux's buffer and, through it, to the terminal" if passed else "tmux's buffer"
    # Too large for the terminal, or tmux before 3.2, which knows no -w.
    said = await _tmux(data, "load-buffer", "-")
    return "tmux's buffer alone" if said is not None else ""


async def _tmux(data: bytes, *arguments: str) -> str | None:
    """Run tmux with `data` as its input; return what it said, or None if it did not do it."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec("tmux", *arguments, stdin=pipe, stdout=pipe, stderr=null)
    except OSError:
        return None
    try:
        said, _ = await asyncio.wait_for(process.communicate(data), TMUX_SECONDS)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode("utf-8", "replace") if process.returncode == 0 else None
