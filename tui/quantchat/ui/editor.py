"""Writing a text in $VISUAL or $EDITOR while the screen steps aside."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from textual.app import App, SuspendNotSupported

from quantchat.errors import UsageError

DEFAULT_EDITOR = "vi"
_LEFT_TO_THE_EDITOR = (signal.SIGINT, signal.SIGQUIT)


def edit_text(app: App[object], text: str) -> str:
    """Let the user edit a text and return it; the event loop stands still meanwhile.

    Raises:
        UsageError: if there is no editor, or it failed.
    """
    command = _editor()
    path = _private_file(text)
    try:
        _run(app, [*command, str(path)])
        return path.read_bytes().decode("utf-8", "replace").removesuffix("\n")
    except OSError as error:
        raise _failed(command, error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _editor() -> list[str]:
    wanted = os.environ.get("VISUAL", "").strip() or os.environ.get("EDITOR", "").strip() or DEFAULT_EDITOR
    try:
        command = shlex.split(wanted)
    except ValueError as error:
        raise _failed([wanted], str(error)) from error
    if not command or shutil.which(command[0]) is None:
        raise _failed(command or [wanted], "there is no such program")
    return command


def _failed(command: list[str], reason: str) -> UsageError:
    return UsageError(
        f"The editor {command[0]} did not do its work",
        f"{reason}. The prompt is as it was",
        "Set EDITOR to an editor that is installed",
        code="editor",
    )


def _private_file(text: str) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(prefix="quantchat-", suffix=".md")
    except OSError as error:
        raise _no_file(error) from error
    path = Path(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(f"{text}\n".encode("utf-8", "replace") if text else b"")
    except OSError as error:
        path.unlink()
        raise _no_file(error) from error
    return path


def _no_file(error: OSError) -> UsageError:
    return UsageError(
        "No file for the editor could be written",
        f"{error.strerror or error}. The prompt is as it was",
        f"Make room in {tempfile.gettempdir()}, or set TMPDIR to another folder",
        code="editor",
    )


def _run(app: App[object], command: list[str]) -> None:
    try:
        with app.suspend(), _signals_left_to_the_editor():
            # Nothing may be raised in here: Textual would not take the terminal back.
            failure = _run_in_terminal(command)
    except SuspendNotSupported as error:
        raise _failed(command, "this terminal cannot be handed over") from error
    if failure:
        raise _failed(command, failure)


def _run_in_terminal(command: list[str]) -> str:
    """Run the editor; return what went wrong, or nothing."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        return error.strerror or str(error)
    return f"it ended with code {code}" if code else ""


@contextlib.contextmanager
def _signals_left_to_the_editor() -> Iterator[None]:
    """Ctrl+C in an editor is meant for it and reaches this process too; unlike SIG_IGN a handler is not inherited."""
    before = {number: signal.signal(number, lambda *_: None) for number in _LEFT_TO_THE_EDITOR}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
