"""Prompts of the library, sampling values and temporary sessions, as a person at the terminal meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripted_run import Inside, ScriptedHome
from terminal import Terminal

SECRET = "xyzzy"


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("enter")


def sessions(scripted: ScriptedHome) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((scripted.home / "data" / "sessions").glob("*.json"))]


def traces(home: Path) -> list[str]:
    """Files that hold the secret, or lie where sessions are kept."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes() or path.parent.name == "sessions"]


@pytest.mark.parametrize(("inside", "columns", "lines"), [("bare", 200, 50), ("tmux", 80, 24)])
def test_a_prompt_of_the_library_is_filled_in_and_asked(
    scripted: ScriptedHome, inside: Inside, columns: int, lines: int
) -> None:
    folder = scripted.home / "config" / "prompts"
    folder.mkdir(parents=True)
    (folder / "haiku.md").write_text("A haiku about {topic}\nin {language}.\n")
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    ask(terminal, "/prompts")
    terminal.wait_for("{topic} {language}")
    # In one packet, as a fast typist over a slow line sends it.
    terminal.press("enter")
    terminal.wait_for("Enter goes on")
    terminal.type("the sea\rFrench\r")
    terminal.wait_for(lambda text: "A haiku about the sea" in text and "in French." in text)
    terminal.press("enter")
    terminal.wait_for("You said: A haiku about the sea")
    ask(terminal, "/set temperature 0.3")
    terminal.wait_for("temperature 0.3 (this session)")
    ask(terminal, "/system Be brief.")
    terminal.wait_for("It counts from the next answer on")
    ask(terminal, "again")
    terminal.wait_for("You said: again")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    (stored,) = sessions(scripted)
    assert stored["system_prompt"] == "Be brief."
    assert stored["sampling"] == {"temperature": 0.3}


@pytest.mark.parametrize("way", ["command", "option"])
def test_a_temporary_session_leaves_no_trace(scripted: ScriptedHome, way: str) -> None:
    answers: list[dict[str, object]] = [{"text": f"{SECRET} " * 60, "tokens_per_second": 40}]
    terminal = scripted.start_loaded(*["--temporary"][: way == "option"], answers=answers)
    if way == "command":
        ask(terminal, "/temporary")
    terminal.wait_for("temporary: never written")
    ask(terminal, f"tell me {SECRET}")
    terminal.wait_for(f"{SECRET} {SECRET}")
    terminal.type(f"a draft of {SECRET}")
    terminal.wait_for(f"a draft of {SECRET}")
    assert traces(scripted.home) == []
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert traces(scripted.home) == []


def test_a_temporary_session_that_is_kept_survives_a_kill(scripted: ScriptedHome) -> None:
    answers: list[dict[str, object]] = [{"text": "apple " * 3000, "tokens_per_second": 40}]
    terminal = scripted.start_loaded("--temporary", answers=answers)
    ask(terminal, "name fruit")
    terminal.wait_for("apple apple")
    ask(terminal, "/keep")
    terminal.wait_for(lambda text: "temporary" not in text.splitlines()[0])
    journals = scripted.home / "data" / "sessions"
    terminal.wait_until(lambda: any("apple apple" in path.read_text() for path in journals.glob("*.journal")))
    terminal.kill()
    again = scripted.start("--continue")
    again.wait_for(lambda text: "apple apple" in text and "interrupted" in text)
    again.press("ctrl+q")
    assert again.wait_exit() == 0
