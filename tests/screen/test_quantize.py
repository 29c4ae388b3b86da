"""Quantizing in a pseudo-terminal: from the row of a model to chatting with the result, while the chat goes on."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from processes import children
from scripted_run import SIZES, ScriptedHome
from terminal import Terminal
from unit.catalog.model_folders import make_dense

BASE = "base-135M"
RESULT = f"{BASE}-GPTQ-4bit-g64"


def started(scripted: ScriptedHome, *, hold: bool = True, columns: int = 120, lines: int = 40) -> tuple[Terminal, Path]:
    """Start with a model loaded and one to quantize; a held job waits in its middle for the file that is returned."""
    make_dense(scripted.models / BASE)
    go = scripted.folder / "go"
    script = {"quantize": {"hold": str(go) if hold else ""}}
    answers: list[dict[str, object]] = [{"match": "hi", "text": "Hello back"}]
    terminal = scripted.start_loaded(columns=columns, lines=lines, script=script, answers=answers)
    return terminal, go


def begin(terminal: Terminal) -> None:
    terminal.type(f"/quantize {BASE}\r")
    terminal.wait_for("Nothing stands against it")
    terminal.press("s")
    terminal.wait_for("layer 2 of 4")


def leave(terminal: Terminal) -> None:
    """Close the view of a job; keys behind Esc in one packet would be keys with Alt."""
    terminal.press("esc")
    terminal.wait_for(lambda text: "Esc lets it go on" not in text)


def made(scripted: ScriptedHome) -> list[str]:
    folder = scripted.home / "data" / "models"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("size", SIZES)
def test_a_quantization_goes_on_while_chatting(scripted: ScriptedHome, size: tuple[int, int]) -> None:
    columns, lines = size
    terminal, go = started(scripted, columns=columns, lines=lines)
    begin(terminal)
    terminal.wait_for("▲ layer 2 mlp.down_proj")
    leave(terminal)
    terminal.wait_for(lambda text: re.search(r"quantizing \d+% \d+:\d\d left", text.splitlines()[-1]) is not None)
    terminal.type("hi\r")
    terminal.wait_for("Hello back")
    assert "quantizing" in terminal.screen_text.splitlines()[-1]
    go.touch()
    terminal.wait_for(f"{RESULT} is made")
    terminal.type("/quantize\r")
    terminal.wait_for("Enter loads it")
    assert made(scripted) == [RESULT]
    terminal.press("enter")
    terminal.wait_for(lambda text: RESULT in text.splitlines()[0])
    terminal.type("hi\r")
    terminal.wait_for(lambda text: text.count("Hello back") == 2)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_a_row_of_the_sidebar_is_quantized_with_a_key(scripted: ScriptedHome) -> None:
    terminal, _ = started(scripted, hold=False)
    terminal.press("f4", "home", "j")
    terminal.write(b"\x1bq")
    terminal.wait_for("Nothing stands against it")
    assert re.search(rf"Model +{BASE}", terminal.screen_text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_a_cancelled_job_leaves_nothing_and_can_begin_again(scripted: ScriptedHome) -> None:
    terminal, go = started(scripted, columns=80, lines=24)
    begin(terminal)
    terminal.press("x")
    terminal.wait_for("y cancels the job")
    terminal.press("y")
    terminal.wait_for("r begins again")
    assert "Stopped" in terminal.screen_text
    assert made(scripted) == []
    go.touch()
    terminal.press("r")
    terminal.wait_for("Nothing stands against it")
    terminal.press("s")
    terminal.wait_for("Enter loads it")
    assert made(scripted) == [RESULT]
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def test_quitting_asks_and_a_hangup_does_not(scripted: ScriptedHome) -> None:
    terminal, _ = started(scripted)
    begin(terminal)
    terminal.press("ctrl+q")
    terminal.wait_for("y quits")
    terminal.press("n")
    leave(terminal)
    terminal.type("hi\r")
    terminal.wait_for("Hello back")
    engines = children("scripted_engine", terminal.pid)
    assert len(engines) == 2
    terminal.kill(signal.SIGHUP)
    terminal.wait_exit()
    assert psutil.wait_procs(engines, timeout=5)[1] == []
    assert made(scripted) == []
