"""Each action by its key, in a bare terminal and in tmux, small and large: what it does is seen on the screen."""

from __future__ import annotations

import pytest

from quantchat.domain.chat import Session
from quantchat.store.sessions import SessionStore
from screen.copies import wait_for_copy
from scripted_run import INSIDE, SIZES, Inside, ScriptedHome
from terminal import Terminal
from tmux import Tmux
from unit.catalog.model_folders import make_gptq

SLOW: list[dict[str, object]] = [{"text": "word " * 2000, "tokens_per_second": 50}]
COUNT = 30

everywhere = [pytest.mark.parametrize("inside", INSIDE), pytest.mark.parametrize(("columns", "lines"), SIZES)]
pytestmark = everywhere


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("enter")


def first_line(text: str) -> str:
    return text.splitlines()[0]


def answer_text(number: int) -> str:
    return f"answer {number} has a needle{number}\n\n```python\nprint({number})\n```\n\nand an end"


def long_session(home: ScriptedHome) -> Session:
    """Questions and answers with code, of which the last was thought about."""
    session = Session.new()
    for number in range(COUNT):
        session.append("user", f"question {number}")
        session.append("assistant", answer_text(number)).finish = "stop"
    last = session.messages[session.head or ""]
    last.thinking = "hidden thoughts"
    last.text += "\n\n```\nsecond block\n```"
    SessionStore(home.home / "data" / "sessions").save(session)
    return session


def test_answers(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(answers=SLOW, inside=inside, columns=columns, lines=lines)
    ask(terminal, "go on")
    terminal.wait_for("word word")
    terminal.press("esc")
    terminal.wait_for(lambda text: "stopped" in text and "Answering" not in text)
    terminal.press("ctrl+r")
    terminal.wait_for("· 2/2")
    terminal.wait_for("Answering")
    terminal.press("ctrl+c")
    terminal.wait_for(lambda text: "Answering" not in text)
    ask(terminal, "first")
    terminal.wait_for("Answering")
    ask(terminal, "second")
    terminal.wait_for("1 more waiting")
    terminal.press("esc")
    terminal.wait_for(lambda text: "waiting" not in text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_models(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    terminal.press("f7")
    terminal.wait_for(lambda text: "no model" in first_line(text))
    terminal.press("f4")
    terminal.wait_for("beta-GPTQ")
    terminal.type("gG")
    terminal.press("enter")
    terminal.wait_for(lambda text: "beta-GPTQ" in first_line(text))
    make_gptq(scripted.models / "gamma-GPTQ")
    terminal.press("f5", "ctrl+l")
    terminal.wait_for("gamma-GPTQ")
    terminal.type("jk")
    terminal.press("home", "end", "enter")
    terminal.wait_for(lambda text: "gamma-GPTQ" in first_line(text))


def test_sessions(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    ask(terminal, "the first one")
    terminal.wait_for("You said: the first one")
    terminal.press("ctrl+n")
    terminal.wait_for(lambda text: "You said" not in text)
    ask(terminal, "the second one")
    terminal.wait_for("You said: the second one")
    terminal.press("f2")
    terminal.wait_for("Title of this session")
    terminal.type("renamed")
    terminal.press("enter")
    terminal.wait_for(lambda text: "renamed" in first_line(text))
    terminal.press("f3")
    terminal.type("j")
    terminal.press("enter")
    terminal.wait_for("You said: the first one")
    terminal.press("f10")
    terminal.wait_for("Delete")
    terminal.press("y")
    terminal.wait_for(lambda text: "You said" not in text and "New session" in first_line(text))
    terminal.press("f3")
    terminal.wait_for("renamed")
    terminal.press("G", "delete")
    terminal.wait_for("Delete")
    terminal.press("n")
    terminal.press("f3", "enter")
    terminal.wait_for("You said: the second one")


def test_reading(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    session = long_session(scripted)
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    last = COUNT - 1
    terminal.wait_for(f"needle{last}")
    terminal.press("f6", "k", "y")
    wait_for_copy(terminal, f"question {last}")
    terminal.press("g", "y")
    wait_for_copy(terminal, "question 0")
    terminal.wait_for("question 0")
    terminal.press("j", "y")
    wait_for_copy(terminal, answer_text(0))
    terminal.press("c")
    wait_for_copy(terminal, "print(0)")
    for key, shown in (("end", f"needle{last}"), ("home", "needle0"), ("G", f"needle{last}")):
        terminal.press(key)
        terminal.wait_for(shown)
    for key in ("pageup", "pagedown", "up", "down"):
        before = terminal.screen_text
        terminal.press(key)
        terminal.wait_for(lambda text, before=before: text != before)
    terminal.press("tab")
    terminal.type("a draft")
    terminal.wait_for("a draft")


def test_copying_from_the_prompt(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    session = long_session(scripted)
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    terminal.wait_for(f"needle{COUNT - 1}")
    terminal.press("ctrl+o")
    wait_for_copy(terminal, session.messages[session.head or ""].text)
    terminal.press("alt+c")
    wait_for_copy(terminal, "second block")
    terminal.press("alt+c")
    wait_for_copy(terminal, f"print({COUNT - 1})")


def test_thinking_and_prompts(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    session = long_session(scripted)
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    terminal.wait_for("thought for")
    terminal.press("ctrl+t")
    terminal.wait_for("hidden thoughts")
    terminal.press("ctrl+t")
    terminal.wait_for(lambda text: "hidden thoughts" not in text)
    terminal.press("f6", "G", "o")
    terminal.wait_for("hidden thoughts")
    terminal.press("esc")
    for _ in range(COUNT):
        terminal.press("alt+up")
    terminal.wait_for("needle0")
    for _ in range(COUNT):
        terminal.press("alt+down")
    terminal.wait_for(f"needle{COUNT - 1}")


def test_finding(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    session = long_session(scripted)
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    terminal.wait_for(f"needle{COUNT - 1}")
    terminal.press("alt+s")
    terminal.wait_for("a capital letter")
    terminal.type("needle3")
    terminal.wait_for(lambda text: "needle3 " in text or "needle3\n" in text)
    terminal.press("esc")
    terminal.wait_for(lambda text: "1 of" not in text)
    terminal.press("f6", "/")
    terminal.wait_for(" Find ")
    terminal.type("question 1")
    terminal.wait_for("of 11")
    places = [line for line in terminal.screen_text.splitlines() if "of 11" in line]
    terminal.press("f6", "n")
    terminal.wait_for(lambda text: "of 11" in text and not any(line in text for line in places))
    terminal.press("N")
    terminal.wait_for(lambda text: all(line in text for line in places))


def test_the_screen(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(inside=inside, columns=columns, lines=lines)
    had = "beta-GPTQ" in terminal.screen_text
    assert had == (columns >= 100)
    terminal.press("f8")
    terminal.wait_for(lambda text: ("beta-GPTQ" in text) != had)
    terminal.press("f8")
    terminal.wait_for(lambda text: ("beta-GPTQ" in text) == had)
    if isinstance(terminal, Tmux):
        terminal.tmux("send-keys", "-R")
    else:
        terminal.screen.reset()
    assert "Ask something" not in terminal.screen_text
    terminal.press("f12")
    terminal.wait_for("Ask something")
    terminal.wait_for(lambda text: "cpu" in text.splitlines()[-1] and "alpha-GPTQ" in first_line(text))
    terminal.press("f1")
    terminal.wait_for("In the prompt")
    terminal.press("esc")
    terminal.wait_for("Ask something")
    ask(terminal, "/quit")
    assert terminal.wait_exit() == 0


def test_another_size(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    """A storm of sizes, and in tmux another terminal: at the end the screen is whole."""
    session = long_session(scripted)
    terminal = scripted.start("--session", session.id, inside=inside, columns=columns, lines=lines)
    terminal.wait_for(f"needle{COUNT - 1}")
    for size in [(40, 15), (200, 50), (61, 17), (columns, lines)] * 5:
        terminal.resize(*size)
    if isinstance(terminal, Tmux):
        terminal.detach()
        terminal.attach(columns + 7, lines + 3)
        wanted = columns + 7
    else:
        wanted = columns
    terminal.wait_for(lambda text: f"needle{COUNT - 1}" in text and "Ask something" in text)
    terminal.wait_for(lambda text: max(map(len, text.splitlines())) == wanted)
