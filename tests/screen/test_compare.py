"""Side by side in a pseudo-terminal: two columns that stream, the difference, a side that is kept."""

from __future__ import annotations

import psutil
import pytest

from processes import children
from scripted_run import MODEL, SCRIPTED_ENGINE, SIZES, ScriptedHome
from terminal import Terminal

ANSWERS: list[dict[str, object]] = [
    {"match": "slow", "text": "word " * 400, "tokens_per_second": 40},
    {"model": "beta", "match": "capital", "text": "The capital is Perth, mate.", "tokens_per_second": 100},
    {"match": "capital", "text": "The capital is Paris, of course.", "tokens_per_second": 80},
]
MARKED = ("Paris,", "Perth,")


@pytest.mark.parametrize("size", [*SIZES, (40, 24)])
def test_two_models_answer_in_two_columns(scripted: ScriptedHome, size: tuple[int, int]) -> None:
    columns, lines = size
    terminal = scripted.start("--model", MODEL, columns=columns, lines=lines, answers=ANSWERS)
    terminal.wait_for("aten")
    terminal.type("/compare\r")
    terminal.wait_for(lambda text: " A  alpha-GPTQ" in text and " B  beta-GPTQ" in text)
    terminal.type("The capital?\r")
    text = terminal.wait_for(lambda text: "token 4: “Paris,”" in text and "token 4: “Perth,”" in text)
    assert "Paris, of course." in terminal.wait_for("tok/s")
    assert terminal.wait_for(lambda text: text.count("tok/s") == 2)
    first, second = (next(n for n, row in enumerate(text.splitlines()) if name in row) for name in ("alpha", "beta"))
    assert (first == second) == (columns >= 70)
    terminal.wait_until(lambda: all(any(is_reverse(terminal, row, word) for row in range(lines)) for word in MARKED))
    terminal.press("f3")
    terminal.wait_for("Kept as")
    terminal.press("esc")
    terminal.wait_for(lambda text: "Side by side" not in text and "The capital is Perth, mate." in text)
    terminal.wait_until(lambda: len(children(str(SCRIPTED_ENGINE), terminal.pid)) == 1)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


def is_reverse(terminal: Terminal, row: int, word: str) -> bool:
    """Whether a word stands in a row in reverse."""
    cells = terminal.screen.buffer[row]
    text = "".join(cells[column].data for column in range(terminal.screen.columns))
    places = [place for place in range(len(text)) if text.startswith(word, place)]
    return any(all(cells[place + step].reverse for step in range(len(word))) for place in places)


def test_keys_that_come_in_one_packet_stop_and_leave_and_quit(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=ANSWERS)
    terminal.type("/compare beta\r")
    terminal.wait_for(" B  beta-GPTQ")
    terminal.type("be slow\rnext")
    terminal.wait_for(lambda text: text.count("TTFT") == 2 and "next" in text)
    terminal.press("ctrl+c")
    terminal.wait_for(lambda text: text.count("stopped") == 2 and "Esc closes" in text)
    assert "next" in terminal.screen_text
    # Quitting from here ends all engines.
    engines = children(str(SCRIPTED_ENGINE), terminal.pid)
    assert len(engines) == 2
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert not alive
