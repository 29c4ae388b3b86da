"""A chat that outgrows its model's context window: what is no longer seen is told before anything is sent."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from e2e.chat import Chat
from quantchat.domain.chat import CONTEXT_FULL
from quantchat.ui.widgets.transcript import UNSEEN

pytestmark = pytest.mark.e2e

WINDOW, LIMIT = 256, 60
CONFIG = f"[sampling]\ntemperature = 0.0\nseed = 1\nmax_new_tokens = {LIMIT}\n"
FIRST, SECOND = "Tell me a long story about a lighthouse.", "Tell me a long story about a mountain."
FOOTER = "cut at the token limit"
THIRD = "Now tell me what a river is, what a lake is, and which of the two is the larger one."


@pytest.fixture(scope="module")
def model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model with a small context window; the weights are the same file."""
    small = tmp_path_factory.mktemp("models") / "Small-GPTQ"
    small.mkdir()
    for file in model.iterdir():
        if file.name != "config.json":
            os.symlink(file, small / file.name)
    config = json.loads((model / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": WINDOW}))
    return small


def context(chat: Chat) -> int:
    """The tokens of the prompt that the status bar tells."""
    found = re.search(rf"ctx (\d+)/{WINDOW}", chat.terminal.screen_text)
    return int(found[1]) if found else 0


def around_the_mark(chat: Chat) -> tuple[str, str]:
    """Wait for the mark; return the last words above it, and the first of what is said below."""
    chat.sees(UNSEEN)
    lines = [line.strip(" ▌▁▂▃▄▅▆▇█") for line in chat.transcript]
    place = next(number for number, line in enumerate(lines) if UNSEEN in line)
    above = [line for line in lines[:place] if line]
    below = [line for line in lines[place + 1 :] if line and line != "you"]
    return above[-1], below[0]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_what_leaves_the_window_is_marked_before_the_prompt_is_sent(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask(FIRST)
    first = chat.answer(1)
    chat.ask(SECOND)
    second = chat.answer(2)
    assert second.statistics is not None
    whole = second.statistics.context_tokens
    chat.rests()
    chat.sees(lambda _: context(chat) >= whole)
    assert UNSEEN not in chat.terminal.screen_text

    chat.terminal.type(THIRD)
    chat.sees(lambda _: 0 < context(chat) < whole)
    told = context(chat)
    chat.terminal.press("f6", "g")
    above, below = around_the_mark(chat)
    assert FOOTER in above
    assert below == SECOND
    assert len(chat.sessions[-1].messages) == 4

    chat.terminal.press("tab", "enter")
    third = chat.answer(3)
    assert third.statistics is not None
    assert third.statistics.prompt_tokens == told
    assert [message.text for message in chat.sessions[-1].branch()][:2] == [FIRST, first.text]
    chat.rests()
    chat.terminal.press("f6", "g")
    assert around_the_mark(chat)[1] == SECOND
    chat.terminal.press("tab")


def test_an_answer_that_runs_into_the_wall_says_so_and_the_chat_goes_on(chat: Chat) -> None:
    chat.ask(f"{'a river and ' * 68} a lake. {FIRST}")
    cut = chat.answer()
    assert cut.finish == "context"
    assert cut.statistics is not None
    assert cut.statistics.prompt_tokens + cut.statistics.new_tokens == WINDOW
    chat.sees("context window full")

    chat.ask("What is the capital of France?")
    answer = chat.answer(2)
    assert "Paris" in answer.text
    assert answer.finish == "stop"
    assert answer.statistics is not None
    assert answer.statistics.prompt_tokens < cut.statistics.prompt_tokens
    chat.sees(UNSEEN)


def test_a_question_too_long_for_the_window_is_refused_before_it_is_sent(chat: Chat) -> None:
    known = len(chat.sessions)
    chat.terminal.type("a river and " * 120)
    chat.sees("The question does not fit the model's context window")
    assert not [session.title for session in chat.sessions[known:] if session.messages]
    chat.terminal.press("enter")
    refused = chat.answer()
    assert refused.finish == "error"
    assert refused.error is not None
    assert refused.error.code == CONTEXT_FULL
    chat.ask("What is the capital of France?")
    assert "Paris" in chat.answer(2).text
