"""Several sessions and answers that go on, in a bare terminal and in tmux; and what a kill in the middle leaves."""

from __future__ import annotations

from itertools import product

import pytest

from quantchat.store.journal import replay
from quantchat.store.sessions import SessionStore
from scripted_run import INSIDE, SIZES, Inside, ScriptedHome
from terminal import Terminal

NUMBERS = " ".join(f"n{number}" for number in range(90))
ANSWERS: list[dict[str, object]] = [
    {"match": "fruit", "text": "apple " * 3000, "tokens_per_second": 40},
    {"match": "beasts", "text": "zebra " * 3000, "tokens_per_second": 40},
    {"match": "count", "text": NUMBERS, "tokens_per_second": 30},
]


WAYS = ("key", "slash", "palette")


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("enter")


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_two_sessions_answer_at_once(scripted: ScriptedHome, inside: Inside, columns: int, lines: int) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, inside=inside, columns=columns, lines=lines)
    ask(terminal, "name fruit")
    terminal.wait_for("apple apple")
    terminal.press("ctrl+n")
    terminal.wait_for(lambda text: "apple" not in text)
    ask(terminal, "name beasts")
    terminal.wait_for(lambda text: "zebra zebra" in text and "+1 answering" in text.splitlines()[-1])
    assert "apple" not in terminal.screen_text
    terminal.press("esc")
    terminal.wait_for(lambda text: "stopped · /continue goes on" in text and "+1 answering" in text.splitlines()[-1])
    terminal.press("f3")
    terminal.wait_for("* name fruit")
    terminal.press("j", "enter")
    terminal.wait_for(lambda text: "apple apple" in text and "Answering" in text and "zebra" not in text)
    ask(terminal, "/stop-all")
    terminal.wait_for(lambda text: "goes on" in text and "Answering" not in text)
    terminal.press("f3")
    terminal.wait_for(lambda text: "* name" not in text and text.count("warm ") == 2)
    terminal.press("esc", "ctrl+q")
    assert terminal.wait_exit() == 0


@pytest.mark.parametrize(
    ("way", "inside", "columns", "lines"),
    [(way, inside, *SIZES[number % len(SIZES)]) for number, (way, inside) in enumerate(product(WAYS, INSIDE))],
)
def test_a_stopped_answer_goes_on(scripted: ScriptedHome, inside: Inside, columns: int, lines: int, way: str) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS, inside=inside, columns=columns, lines=lines)
    ask(terminal, "count")
    terminal.wait_for("n3 n4")
    terminal.press("ctrl+c")
    terminal.wait_for("/continue goes on")
    if way == "key":
        terminal.press("alt+r")
    elif way == "slash":
        ask(terminal, "/continue")
    else:
        terminal.press("ctrl+p")
        terminal.wait_for("Type a part of its name")
        terminal.type("continue")
        terminal.wait_for("Continue the answer")
        terminal.press("enter")
    terminal.wait_for("n89")
    text = " ".join(word for word in terminal.screen_text.split() if word in NUMBERS.split())
    assert text == NUMBERS
    terminal.wait_for(lambda text: "goes on" not in text and "Answering" not in text)
    terminal.press("alt+r")
    terminal.wait_for("The last answer is complete")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_a_kill_while_an_answer_goes_on_doubles_and_loses_nothing(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS)
    ask(terminal, "count")
    terminal.wait_for("n9 ")
    terminal.press("esc")
    terminal.wait_for("/continue goes on")
    ask(terminal, "/continue")
    store = SessionStore(scripted.home / "data" / "sessions")
    (session_id,) = [path.stem for path in store.root.glob("*.json")]
    terminal.wait_for("n25")
    terminal.wait_for(lambda _: "n25" in replay(store.journal_path(session_id))[-1].text)
    terminal.kill()
    terminal.wait_exit()
    terminal = scripted.start_loaded("--session", session_id, answers=ANSWERS)
    terminal.wait_for("interrupted: quantchat ended before the answer did · /continue goes on")
    kept = store.load(session_id).branch()[-1].text
    assert "n25" in kept
    assert NUMBERS.startswith(kept)
    terminal.press("alt+r")
    terminal.wait_for("n89")
    terminal.wait_for(lambda text: "Answering" not in text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    (question, answer) = store.load(session_id).branch()
    assert (question.text, answer.text, answer.finish) == ("count", NUMBERS, "stop")


def test_reading_a_long_prompt_stops_at_once(scripted: ScriptedHome) -> None:
    slow: list[dict[str, object]] = [{"text": "never", "prefill_seconds": 30}]
    terminal = scripted.start_loaded(answers=slow, columns=80, lines=24)
    terminal.paste("word " * 600)
    terminal.wait_for("paste 1")
    terminal.press("enter")
    terminal.wait_for(lambda text: "Reading 64 of 60" in text)
    terminal.press("ctrl+c")
    terminal.wait_for(lambda text: "Reading" not in text and "stopped" in text)
    assert "never" not in terminal.screen_text
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
