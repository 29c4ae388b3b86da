"""The whole program on a home that is read-only or fills up: it says so, loses nothing, and goes on after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import disks
from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from scripted_run import ScriptedHome
from terminal import Terminal

ANSWERS: list[dict[str, object]] = [{"match": "long", "text": "word " * 20_000}, {"text": "an answer"}]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """The home as a file system of its own, which can be mounted anew."""
    with disks.mounted(tmp_path / "home", "size=96k,mode=700") as mount:
        yield mount


def stored(home: ScriptedHome) -> list[Session]:
    return [decode_session(path.read_bytes()) for path in (home.home / "data" / "sessions").glob("*.json")]


def ask(terminal: Terminal, question: str) -> None:
    terminal.type(question)
    terminal.press("enter")


def asked(home: ScriptedHome) -> set[str]:
    return {m.text for session in stored(home) for m in session.messages.values() if m.role == "user"}


def test_a_home_that_is_read_only(scripted: ScriptedHome, disk: Callable[[str], None]) -> None:
    disk("remount,ro")
    terminal = scripted.start_loaded(answers=ANSWERS)
    ask(terminal, "first")
    terminal.wait_for("an answer")
    terminal.wait_for("NOT SAVED")
    disk("remount,rw")
    terminal.wait_for(lambda text: "NOT SAVED" not in text)
    terminal.wait_until(lambda: asked(scripted) == {"first"})
    ask(terminal, "second")
    terminal.wait_until(lambda: asked(scripted) == {"first", "second"})
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_a_home_that_stays_read_only_tells_at_the_end_what_is_lost(
    scripted: ScriptedHome, disk: Callable[[str], None]
) -> None:
    disk("remount,ro")
    terminal = scripted.start_loaded(answers=ANSWERS)
    ask(terminal, "first")
    terminal.wait_for("NOT SAVED")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 3
    terminal.wait_for("not saved: No permission to write")


def test_a_disk_that_fills_up_while_an_answer_streams(
    scripted: ScriptedHome, disk: Callable[[str], None], fill_disk: Callable[[Path], Path]
) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS)
    ask(terminal, "first")
    terminal.wait_until(lambda: asked(scripted) == {"first"})
    ballast = fill_disk(scripted.home)
    ask(terminal, "second")
    terminal.wait_for("NOT SAVED")
    terminal.wait_for("The disk is full")
    assert asked(scripted) == {"first"}
    ballast.unlink()
    terminal.wait_for(lambda text: "NOT SAVED" not in text)
    terminal.wait_until(lambda: asked(scripted) == {"first", "second"})
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
