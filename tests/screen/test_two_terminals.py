"""Two programs in two terminals on one home; programs that are killed, and those that signals end."""

from __future__ import annotations

import os
import signal

import pytest

from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session
from scripted_run import INSIDE, ScriptedHome
from terminal import Terminal

ANSWERS: list[dict[str, object]] = [
    {"match": "count", "text": " ".join(f"n{number}" for number in range(3000)), "tokens_per_second": 40},
    {"match": "quick", "text": "quickly answered"},
]
READ_ONLY = "read only: open in another quantchat"


def sessions(home: ScriptedHome) -> list[Session]:
    return [decode_session(path.read_bytes()) for path in sorted((home.home / "data" / "sessions").glob("*.json"))]


def highest(terminal: Terminal) -> int:
    """The last number of the answer that is on the screen."""
    words = terminal.screen_text.replace("│", " ").split()
    numbers = [int(word[1:]) for word in words if word.startswith("n") and word[1:].isdigit()]
    return max(numbers, default=-1)


def counting(home: ScriptedHome, inside: str = "bare") -> Terminal:
    """A program in which a long answer streams."""
    terminal = home.start_loaded(answers=ANSWERS, inside=inside)
    terminal.type("count for me")
    terminal.press("enter")
    terminal.wait_until(lambda: highest(terminal) > 5)
    return terminal


def left(terminal: Terminal, home: ScriptedHome) -> list[str]:
    """What is beside the sessions in their folder."""
    return [path.name for path in (home.home / "data" / "sessions").iterdir() if path.suffix != ".json"]


@pytest.mark.parametrize("inside", INSIDE)
def test_a_second_terminal_reads_along_and_takes_over(scripted: ScriptedHome, inside: str) -> None:
    writer = counting(scripted, inside)
    reader = scripted.start("--continue", answers=ANSWERS, inside=inside)
    reader.wait_for(READ_ONLY)
    seen = highest(reader)
    # Live: the reader is never far behind, and grows while nobody touches it.
    reader.wait_until(lambda: highest(reader) > seen + 20)
    for _ in range(3):
        writer.pump()
        wanted = highest(writer)
        reader.wait_until(lambda wanted=wanted: highest(reader) >= wanted)
    reader.type("not from here")
    reader.press("enter")
    reader.wait_for("open elsewhere")
    writer.press("ctrl+q")
    writer.wait_exit()
    reader.wait_for(lambda text: READ_ONLY not in text and "stopped" in text)
    # What was typed here is still in the prompt.
    reader.press("enter")
    reader.wait_until(lambda: any(m.text == "not from here" for s in sessions(scripted) for m in s.messages.values()))
    reader.press("ctrl+q")
    assert reader.wait_exit() == 0
    assert left(reader, scripted) == []


def test_a_reader_takes_over_from_a_program_that_was_killed(scripted: ScriptedHome) -> None:
    writer = counting(scripted)
    reader = scripted.start("--continue", answers=ANSWERS)
    reader.wait_for(READ_ONLY)
    shown = highest(writer)
    writer.kill()
    writer.wait_exit()
    reader.wait_for(lambda text: READ_ONLY not in text and "interrupted" in text)
    reader.press("ctrl+q")
    reader.wait_exit()
    (session,) = sessions(scripted)
    answer = session.branch()[-1]
    # What stood on the screen when it was killed may be younger than a second: 40 words.
    assert len(answer.text.split()) > shown - 45
    assert answer.finish == "interrupted"
    assert left(reader, scripted) == []


def test_an_answer_comes_back_after_a_kill(scripted: ScriptedHome) -> None:
    terminal = counting(scripted)
    shown = highest(terminal)
    terminal.kill()
    terminal.wait_exit()
    again = scripted.start("--continue", answers=ANSWERS)
    again.wait_for("Recovered 1 interrupted answer")
    again.wait_for("interrupted: quantchat ended before the answer did")
    (session,) = sessions(scripted)
    assert len(session.branch()[-1].text.split()) > shown - 45
    again.press("ctrl+q")
    assert again.wait_exit() == 0
    assert left(again, scripted) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_finish_the_write_and_leave(scripted: ScriptedHome, number: signal.Signals) -> None:
    terminal = counting(scripted)
    shown = highest(terminal)
    os.kill(terminal.pid, number)
    assert terminal.wait_exit() == 0
    (session,) = sessions(scripted)
    answer = session.branch()[-1]
    assert answer.finish == "stopped"
    assert len(answer.text.split()) > shown
    assert left(terminal, scripted) == []
    tail = bytes(terminal.raw[-4000:])
    assert b"\x1b[?1049l" in tail
    assert b"\x1b[?25h" in tail


def test_a_session_of_a_later_program_is_read_and_left_alone(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS)
    terminal.type("quick")
    terminal.press("enter")
    terminal.wait_for("quickly answered")
    terminal.press("ctrl+q")
    terminal.wait_exit()
    (path,) = (scripted.home / "data" / "sessions").glob("*.json")
    path.write_text(path.read_text().replace('"version": 3', '"version": 4, "unheard": [1]'))
    before = path.read_bytes()
    terminal = scripted.start("--continue", answers=ANSWERS)
    terminal.wait_for("read only: written by a later quantchat")
    terminal.wait_for("quickly answered")
    terminal.type("more")
    terminal.press("enter")
    terminal.wait_for("Upgrade quantchat")
    terminal.press("ctrl+q")
    terminal.wait_exit()
    assert path.read_bytes() == before
