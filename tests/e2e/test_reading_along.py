"""Two terminals on one home: one asks the real model, the other reads along, and goes on when the first is gone."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from e2e.chat import LOAD_SECONDS
from e2e.conftest import Start, answers_of, stored_sessions
from terminal import Terminal

pytestmark = pytest.mark.e2e

LONG = "Write a very long story about a lighthouse keeper, with many chapters."
READ_ONLY = "read only: open in another quantchat"
LAST_SECOND = 1.5
"""Seconds of words that a kill may cost, with what a busy machine adds to them."""


def words(terminal: Terminal) -> list[str]:
    """What the transcript shows, without the lists at its left and the line below it."""
    rows = terminal.screen_text.splitlines()[1:-4]
    edge = max(rows[0].rfind("│"), rows[0].rfind("╮"))
    lines = [row[edge + 1 :] for row in rows if "Esc stops" not in row]
    return re.findall(r"\w+", " ".join(lines))


def test_a_second_terminal_reads_along_and_goes_on_after_a_kill(start: Start, home: Path) -> None:
    writer = start("--model", "GPTQ", columns=120, lines=50)
    writer.wait_for(lambda text: " cpu" in text.splitlines()[-1], LOAD_SECONDS)
    writer.type(LONG)
    writer.press("enter")
    writer.wait_for(lambda text: "Answering" in text and "tok/s" in text, 60)

    reader = start("--continue", columns=120, lines=50)
    reader.wait_for(READ_ONLY, 30)
    begun = len(words(reader))
    reader.wait_until(lambda: (writer.pump(0), len(words(reader)) > begun + 5)[1])
    writer.pump()
    # The last word may be the beginning of one.
    tail = words(writer)[-6:-2]
    moment = time.monotonic()
    reader.wait_until(lambda: any(words(reader)[n : n + 4] == tail for n in range(len(words(reader)))))
    followed = time.monotonic() - moment
    assert followed < 5.0, f"the reader was {followed:.1f} s behind"

    writer.pump()
    said = words(writer)
    speed = re.search(r"([\d.]+) tok/s", writer.screen_text)
    assert speed is not None
    writer.kill()
    writer.wait_exit()
    reader.wait_for(lambda text: READ_ONLY not in text and "interrupted" in text, 30)
    (session,) = stored_sessions(home)
    (answer,) = answers_of(session)
    assert answer["finish"] == "interrupted"
    kept = re.findall(r"\w+", str(answer["text"]))
    lost = float(speed[1]) * LAST_SECOND
    assert len(kept) > len(said) - len(LONG.split()) - lost - 10

    reader.press("ctrl+q")
    assert reader.wait_exit() == 0
    assert {path.suffix for path in (home / "data" / "sessions").iterdir()} == {".json"}
