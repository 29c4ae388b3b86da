"""Models are quantized from the screen by the real engine, loaded, and answer.

`QUANTCHAT_TEST_QUANTIZE=1` does so with the demo's model in all common ways, which takes minutes each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import tiny
from quantchat.services.demo import PLAIN
from terminal import Terminal, program_env, quantchat_command

pytestmark = pytest.mark.e2e
ALL = pytest.mark.skipif("QUANTCHAT_TEST_QUANTIZE" not in os.environ, reason="minutes; set QUANTCHAT_TEST_QUANTIZE")
PATIENCE = 240
LONG = 3600
METHOD, BITS, SAMPLES, TRY = 3, 4, 12, 14
"""Rows of the form, from above."""

Start = Callable[[Path], Terminal]


@pytest.fixture
def start(tmp_path: Path, home: Path) -> Iterator[Start]:
    """Start the program with nothing but one model."""
    terminals: list[Terminal] = []

    def run(model: Path) -> Terminal:
        models = tmp_path / "models"
        models.mkdir()
        (models / "base").symlink_to(model)
        env = program_env(home, HF_HUB_CACHE=str(tmp_path / "hub"))
        terminals.append(Terminal(quantchat_command("--models-dir", str(models)), env=env, columns=100, lines=30))
        return terminals[-1]

    yield run
    for terminal in terminals:
        terminal.close()


def change(terminal: Terminal, row: int, key: str, shown: str) -> None:
    """Go to a row of the form and take another value."""
    terminal.press("home", *["down"] * row, key)
    terminal.wait_for(lambda text: re.search(shown, text) is not None)


def open_form(terminal: Terminal) -> None:
    terminal.wait_for("unquantized")
    terminal.type("/quantize base\r")
    terminal.wait_for(lambda text: "Time" in text and "Start" in text)
    change(terminal, SAMPLES, "right", "Samples +64")


def quantize(terminal: Terminal, seconds: float) -> str:
    """Start the job of the form; its share never falls and reaches the end. Return the screen then."""
    terminal.press("s")
    shares: list[int] = []

    def ended(text: str) -> bool:
        shares.extend(int(found) for found in re.findall(r"[█░] (\d+)%", text))
        return "Enter loads it" in text or "begins again" in text

    text = terminal.wait_for(ended, seconds)
    assert "Made" in text, text
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert re.findall(r"layer \d+ [a-z_.]+ +\d\.\d\de[+-]\d\d", text)
    return text


def ask(terminal: Terminal, name: str, question: str) -> None:
    """Load the result, ask it, and wait for the end of its answer."""
    terminal.press("enter")
    terminal.wait_for(lambda text: name in text.splitlines()[0], PATIENCE)
    terminal.type(f"{question}\r")
    terminal.wait_for(lambda text: "tok/s" in text.splitlines()[-1], PATIENCE)
    terminal.wait_for(lambda text: "Esc stops" not in text, PATIENCE)


def test_a_model_is_quantized_and_answers(start: Start, home: Path) -> None:
    terminal = start(tiny.folder() / "dense")
    open_form(terminal)
    # The chat asks it later.
    change(terminal, TRY, "right", "Try it +no")
    quantize(terminal, PATIENCE)
    ask(terminal, "base-GPTQ-4bit-g128", "Hello")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    made = home / "data" / "models" / "base-GPTQ-4bit-g128"
    assert "GPTQ" in (made / "README.md").read_text()
    assert [path.name for path in made.parent.iterdir()] == [made.name]


@ALL
@pytest.mark.parametrize(
    ("row", "key", "shown", "name"),
    [
        (BITS, "home", "Bits +4", "base-GPTQ-4bit-g64"),
        (BITS, "right", "Bits +8", "base-GPTQ-8bit-g64"),
        (BITS, "left", "Bits +3", "base-GPTQ-3bit-g64"),
        (METHOD, "right", "Method +AWQ", "base-AWQ-4bit-g64"),
    ],
)
def test_the_demos_model_is_quantized_and_answers(
    start: Start, model: Path, row: int, key: str, shown: str, name: str
) -> None:
    terminal = start(model.parent / PLAIN)
    open_form(terminal)
    change(terminal, row, key, shown)
    text = quantize(terminal, LONG)
    assert re.search(r"\? +[\d.]+ tok/s", text), text
    ask(terminal, name, "What is the capital of France?")
