"""A GGUF file on the screen: SmolLM2 in Q4_1 through llama.cpp, asked, stopped, taken up again, switched."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from demo_gguf import demo_gguf
from e2e.chat import HANG_SECONDS, Chat, chatting
from processes import children

pytestmark = pytest.mark.e2e

CONFIG = "[sampling]\ntemperature = 0.0\nmax_new_tokens = 400\n"
QUESTION = "What is the capital of France?"
LONG = "Write a very long story about a lighthouse keeper, with many chapters."


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    """The program with the file loaded."""
    path = demo_gguf()
    with chatting(tmp_path_factory.mktemp("gguf") / "home", path.with_suffix(""), CONFIG) as chat:
        yield chat


def engine(chat: Chat) -> psutil.Process:
    return children("quantchat.engine", chat.terminal.pid)[0]


def test_it_answers_and_the_next_turn_computes_only_what_is_new(chat: Chat) -> None:
    assert "llama" in engine(chat).cmdline()
    chat.resize(120, 40)
    chat.sees("GGUF Q4_1")
    chat.sees("llama.cpp")
    chat.ask(QUESTION)
    first = chat.answer()
    assert first.text.strip()
    assert first.run is not None
    assert (first.run.kernel, first.run.device) == ("llama.cpp", "cpu")
    chat.ask("And of Spain?")
    second = chat.answer(2)
    assert first.statistics is not None
    assert second.statistics is not None
    assert second.statistics.reused_tokens >= first.statistics.prompt_tokens
    assert second.statistics.new_tokens > 1


def test_stop_keeps_the_text_and_continue_goes_on(chat: Chat) -> None:
    chat.ask(LONG)
    chat.streams()
    chat.terminal.press("esc")
    stopped = chat.answer()
    assert stopped.finish == "stopped"
    assert stopped.text
    chat.ask("/continue")
    whole = chat.answer(where=lambda message: message.finish != "stopped")
    assert whole.text.startswith(stopped.text)
    assert len(whole.text) > len(stopped.text)


def test_two_sessions_answer_side_by_side(chat: Chat) -> None:
    before = len(chat.sessions)
    chat.ask(LONG)
    chat.streams()
    chat.terminal.press("ctrl+n")
    chat.sees(lambda text: " New session  " in text.splitlines()[0])
    chat.ask(QUESTION)
    chat.terminal.wait_until(
        lambda: len(chat.sessions) == before + 2 and all(done(chat, session) for session in (-1, -2)), HANG_SECONDS
    )
    assert all(chat.answers(session)[0].text for session in (-1, -2))


def done(chat: Chat, session: int) -> bool:
    answers = chat.answers(session)
    return bool(answers) and answers[0].finish is not None


def test_the_exact_prompt_can_be_seen(chat: Chat) -> None:
    chat.ask(QUESTION)
    chat.answer()
    chat.resize(120, 40)
    chat.ask("/prompt")
    chat.sees("<|im_start|>")
    chat.terminal.press("esc")
    chat.rests()
