"""A session that the real model answers, names, and that is found again by what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.chat import HANG_SECONDS, LOAD_SECONDS
from e2e.conftest import Start
from quantchat.domain.chat import Session
from quantchat.store.schema import decode_session

pytestmark = pytest.mark.e2e

QUESTION = "What is the capital of France?"


def test_a_session_is_named_by_the_model_and_found_by_its_words(start: Start, home: Path, model: Path) -> None:
    (home / "config" / "config.toml").write_text("[sampling]\ntemperature = 0.0\nmax_new_tokens = 60\n")
    terminal = start("--model", model.name, columns=80, lines=24)

    def stored() -> list[Session]:
        return [decode_session(path.read_bytes()) for path in sorted((home / "data" / "sessions").glob("*.json"))]

    terminal.wait_for(lambda text: " cpu" in text.splitlines()[-1], LOAD_SECONDS)
    terminal.type(QUESTION)
    terminal.press("enter")
    terminal.wait_until(lambda: any(session.named_by == "model" for session in stored()), HANG_SECONDS)
    (session,) = stored()
    assert session.title not in ("", QUESTION)
    terminal.wait_for(lambda text: session.title in text.splitlines()[0])
    said = session.branch()[-1].text.split()[-1].strip(".")
    terminal.press("ctrl+n")
    terminal.wait_for(lambda text: " New session  " in text.splitlines()[0])
    terminal.type(f"/search {said.upper()}")
    terminal.press("enter")
    terminal.wait_for(lambda text: "in 1 session" in text and "answer" in text)
    terminal.press("enter")
    terminal.wait_for(lambda text: session.title in text.splitlines()[0] and QUESTION in text)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
