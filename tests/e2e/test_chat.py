"""A person's day: choose a model by keys, ask, stop, switch, quit, come back, lose nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from e2e.chat import LOAD_SECONDS
from e2e.conftest import Start, answers_of, stored_sessions
from processes import children
from terminal import Terminal, program_env, quantchat_command

pytestmark = pytest.mark.e2e

QUESTION = "What is the capital of France?"
LONG = "Write a very long story about a lighthouse keeper, with many chapters."


def load(terminal: Terminal) -> None:
    """Choose the quantized model by a filter."""
    terminal.wait_for("GPTQ 4b g64", 60)
    terminal.press("ctrl+l")
    terminal.type("/gptq")
    terminal.wait_for("Models: gptq")
    terminal.press("enter")
    loaded(terminal)


def loaded(terminal: Terminal) -> None:
    """Wait until the status bar names the kernel and the device."""
    terminal.wait_for(lambda text: " cpu" in text.splitlines()[-1], LOAD_SECONDS)


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("enter")


def engine_of(terminal: Terminal) -> psutil.Process:
    return children("quantchat.engine", terminal.pid)[0]


def streaming(terminal: Terminal) -> None:
    """Wait until an answer has begun to stream."""
    terminal.wait_for(lambda text: "Answering" in text and "tok/s" in text, 60)


def test_ask_stop_switch_quit_and_come_back(start: Start, home: Path) -> None:
    terminal = start()
    load(terminal)
    ask(terminal, QUESTION)
    terminal.wait_for("Paris", 60)
    terminal.wait_for(lambda text: "Answering" not in text, 60)

    terminal.press("ctrl+n")
    terminal.wait_for(lambda text: "Paris" not in text)
    ask(terminal, LONG)
    streaming(terminal)
    terminal.wait_for(lambda text: any(word in text.lower() for word in ("lighthouse keeper", "keeper")), 30)
    terminal.press("esc")
    terminal.wait_for("stopped", 10)

    terminal.press("f3")
    terminal.type("j")
    terminal.press("enter")
    terminal.wait_for("Paris")
    terminal.press("f3")
    terminal.type("g")
    terminal.press("enter")
    terminal.wait_for("stopped")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0

    sessions = stored_sessions(home)
    assert len(sessions) == 2
    (france,), (story,) = (answers_of(session) for session in sessions)
    assert "Paris" in str(france["text"])
    assert france["finish"] == "stop"
    assert story["finish"] == "stopped"
    assert len(str(story["text"])) > 10

    again = start("--continue")
    again.wait_for("stopped", 30)
    again.wait_for(lambda text: "│  What is" in text and "│  Write a" in text, 30)
    again.press("ctrl+q")
    assert again.wait_exit() == 0


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_the_demo_opens_on_its_model_and_knows_paris(home: Path, model: Path, columns: int, lines: int) -> None:
    (home / "data" / "models").mkdir(parents=True)
    (home / "data" / "models" / model.name).symlink_to(model)
    terminal = Terminal(quantchat_command("demo"), env=program_env(home), columns=columns, lines=lines)
    try:
        terminal.wait_for(lambda text: model.name in text.splitlines()[0], LOAD_SECONDS)
        ask(terminal, QUESTION)
        terminal.wait_for("Paris", 60)
        terminal.press("f1")
        terminal.wait_for("In the prompt")
        terminal.press("esc")
        terminal.wait_for(lambda text: "In the prompt" not in text)
        terminal.press("ctrl+q")
        assert terminal.wait_exit() == 0
    finally:
        terminal.close()


def test_a_dead_engine_leaves_the_chat_alive(start: Start, home: Path) -> None:
    terminal = start("--model", "GPTQ")
    loaded(terminal)
    ask(terminal, LONG)
    streaming(terminal)
    engine_of(terminal).send_signal(signal.SIGKILL)
    terminal.wait_for("SIGKILL", 20)
    terminal.wait_for("failed", 10)
    ask(terminal, QUESTION)
    terminal.wait_for("Paris", LOAD_SECONDS)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    (session,) = stored_sessions(home)
    killed, answered = answers_of(session)
    assert killed["finish"] == "error"
    assert killed["text"]
    assert "Paris" in str(answered["text"])


def test_a_killed_program_gives_the_partial_answer_back(start: Start, home: Path) -> None:
    terminal = start("--model", "GPTQ")
    loaded(terminal)
    ask(terminal, LONG)
    streaming(terminal)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        terminal.pump()
    engine = engine_of(terminal)
    terminal.kill(signal.SIGKILL)
    terminal.wait_exit()
    engine.wait(5)

    again = start("--continue")
    again.wait_for("interrupted", 30)
    again.press("ctrl+q")
    assert again.wait_exit() == 0
    (session,) = stored_sessions(home)
    (answer,) = answers_of(session)
    assert answer["finish"] == "interrupted"
    assert len(str(answer["text"])) > 20


@pytest.mark.parametrize("moment", ["importing", "loading", "generating"])
def test_quitting_is_quick_and_clean(start: Start, moment: str) -> None:
    arguments = () if moment == "importing" else ("--model", "GPTQ")
    terminal = start(*arguments)
    terminal.wait_for("New session", 30)
    if moment == "loading":
        terminal.wait_for("Loading", 60)
    if moment == "generating":
        loaded(terminal)
        ask(terminal, LONG)
        streaming(terminal)
    family = psutil.Process(terminal.pid).children(recursive=True)
    begun = time.monotonic()
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert time.monotonic() - begun < 10, "it waited for the engine"
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []
    tail = bytes(terminal.raw[-4000:])
    assert b"\x1b[?1049l" in tail
    assert b"\x1b[?25h" in tail
    assert b"\x1b[?1000l" in tail


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_restore_the_terminal(start: Start, home: Path, number: signal.Signals) -> None:
    terminal = start("--model", "GPTQ")
    loaded(terminal)
    ask(terminal, LONG)
    streaming(terminal)
    os.kill(terminal.pid, number)
    terminal.wait_exit()
    assert b"\x1b[?1049l" in bytes(terminal.raw[-4000:])
    (session,) = stored_sessions(home)
    (answer,) = answers_of(session)
    assert answer["finish"] == "stopped"
    assert answer["text"]


@pytest.mark.parametrize("moment", ["idle", "streaming"])
def test_a_dropped_line_ends_the_program_and_loses_nothing(start: Start, home: Path, moment: str) -> None:
    terminal = start("--model", "GPTQ")
    loaded(terminal)
    if moment == "streaming":
        ask(terminal, LONG)
        streaming(terminal)
    family = psutil.Process(terminal.pid).children(recursive=True)
    terminal.hang_up()
    end = time.monotonic() + 8
    while terminal.poll() is None:
        assert time.monotonic() < end, "still running without a terminal"
        time.sleep(0.05)
    _, alive = psutil.wait_procs(family, timeout=3)
    assert alive == []
    if moment == "streaming":
        again = start("--continue")
        again.wait_for(lambda text: "stopped" in text or "interrupted" in text, 30)
        again.press("ctrl+q")
        assert again.wait_exit() == 0
        (session,) = stored_sessions(home)
        (answer,) = answers_of(session)
        assert answer["text"]
