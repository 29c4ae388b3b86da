"""Versions, branches and deletions at the terminal, and what of them a kill or a dropped line leaves."""

from __future__ import annotations

import time

import pytest

from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from quantchat.store.sessions import SessionStore
from scripted_run import Inside, ScriptedHome
from terminal import Terminal

ANSWERS: list[dict[str, object]] = [{"match": "count", "text": "One, two, three, four", "tokens_per_second": 0}]


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("enter")


def read(home: ScriptedHome, number: int = 0) -> Session:
    """A session on the disk, by default the first."""
    paths = sorted((home.home / "data" / "sessions").glob("*.json"))
    return decode_session(paths[number].read_bytes())


def shown(home: ScriptedHome, number: int = 0) -> list[str]:
    return [message.text for message in read(home, number).branch()]


def ended(terminal: Terminal) -> None:
    """Wait until a program has ended whose terminal may be gone."""
    end = time.monotonic() + 30
    while terminal.poll() is None:
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def stored(home: ScriptedHome, *texts: str) -> Session:
    session = Session.new()
    for number, text in enumerate(texts):
        session.append("assistant" if number % 2 else "user", text).finish = "stop" if number % 2 else None
    SessionStore(home.home / "data" / "sessions").save(session)
    return session


@pytest.mark.parametrize(("inside", "columns", "lines"), [("bare", 80, 24), ("tmux", 200, 50)])
def test_the_whole_tree_by_keys(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, inside=inside, columns=columns, lines=lines)
    ask(terminal, "first")
    terminal.wait_for("You said: first")
    ask(terminal, "second")
    terminal.wait_for("You said: second")
    terminal.press("f6", "g", "e")
    terminal.wait_for("Change your prompt")
    terminal.type(" changed")
    terminal.wait_for("first changed")
    terminal.press("enter")
    terminal.wait_for(lambda text: "You said: first changed" in text and "you · 2/2 · changed by you" in text)
    assert "second" not in terminal.screen_text
    terminal.press("f6", "g", "<")
    terminal.wait_for(lambda text: "you · 1/2" in text and "You said: second" in text)
    terminal.press("j", "r")
    terminal.wait_for(lambda text: "· 2/2" in text and "second" not in text and "3 tokens" in text)
    terminal.press("D")
    terminal.wait_for("You said: second")
    terminal.press("u")
    terminal.wait_for(lambda text: "You said: second" not in text)
    terminal.press("i")
    terminal.wait_for(lambda text: "gptq_torch_aten" in text and "Written" in text)
    terminal.press("esc")
    terminal.wait_for(lambda text: "Written" not in text)
    terminal.press("b")
    terminal.wait_for("begins with")
    terminal.type("You")
    terminal.press("enter")
    terminal.wait_for(lambda text: "· 3/3 · begun by you" in text and "tokens ·" in text)
    terminal.press("f6", "f")
    terminal.wait_for("(fork)")
    ask(terminal, "count")
    terminal.wait_for("One, two, three, four")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert len(read(scripted).messages) == 8
    assert [message.text for message in read(scripted, 1).branch()][2:] == ["count", "One, two, three, four"]


def test_a_deletion_is_undone_after_a_kill(scripted: ScriptedHome) -> None:
    session = stored(scripted, "one", "to one", "two", "to two")
    terminal = scripted.start("--session", session.id)
    terminal.wait_for("to two")
    terminal.press("f6", "g", "j", "j", "D")
    terminal.wait_for("Deleted 2 messages")
    terminal.wait_until(lambda: shown(scripted) == ["one", "to one"])
    terminal.kill()
    ended(terminal)
    terminal = scripted.start("--session", session.id)
    terminal.wait_for("to one")
    assert "to two" not in terminal.screen_text
    ask(terminal, "/undo")
    terminal.wait_for("to two")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert shown(scripted) == ["one", "to one", "two", "to two"]


@pytest.mark.parametrize("how", ["kill", "hang up"])
def test_an_unsent_change_outlives_the_program(scripted: ScriptedHome, how: str) -> None:
    session = stored(scripted, "one", "to one")
    terminal = scripted.start("--session", session.id)
    terminal.wait_for("to one")
    terminal.press("f6", "g", "e")
    terminal.wait_for("Change your prompt")
    terminal.type(" and only")
    terminal.wait_for("one and only")
    if how == "kill":
        terminal.wait_until(lambda: list(read(scripted).edits.values()) == ["one and only"])
        terminal.kill()
    else:
        terminal.hang_up()
    ended(terminal)
    assert shown(scripted) == ["one", "to one"]
    terminal = scripted.start("--session", session.id)
    terminal.wait_for("to one")
    ask(terminal, "/edit")
    terminal.wait_for("one and only")
