"""Answers that are stopped or cut at once, and go on in place."""

from __future__ import annotations

import time
from functools import partial

import pytest

from e2e.chat import Chat
from quantchat.domain.chat import Message
from quantchat.domain.generation import TurnStatistics

pytestmark = pytest.mark.e2e

LIMIT = 96
# An answer that has no end, and whose every word is certain: it can be compared to the last letter. Drafts, which a
# seed turns off, and other sums would turn a text at words that are as probable as others.
CONFIG = f"""
[sampling]
temperature = 0.0
seed = 1
max_new_tokens = {LIMIT}
logit_bias = {{ "<|im_end|>" = -100.0 }}
"""
LIST = "List the numbers from 1 to 100."


def cost(message: Message) -> TurnStatistics:
    assert message.statistics is not None
    return message.statistics


def stop_early(chat: Chat) -> Message:
    """Ask for a list, and stop it after a few lines."""
    chat.ask(LIST)
    chat.streams()
    chat.terminal.press("esc")
    stopped = chat.answer()
    assert stopped.finish == "stopped"
    assert 0 < cost(stopped).new_tokens < LIMIT
    return stopped


def has_gone_on(message: Message, since: int = 1) -> bool:
    """Whether it holds what it had said before, at least so many tokens, and more."""
    return cost(message).resumed_tokens >= since


def is_shown(chat: Chat, message: Message) -> bool:
    """Whether the last words of a message are on the screen, however they are wrapped."""
    last, words = message.text.split()[-7:-1], " ".join(chat.transcript).split()
    return any(words[place : place + len(last)] == last for place in range(len(words)))


def test_esc_ends_an_answer_at_once_and_its_cache_stays_right(chat: Chat) -> None:
    chat.ask(LIST)
    chat.streams()
    begun = time.monotonic()
    chat.terminal.press("esc")
    chat.sees("stopped ·")
    waited = time.monotonic() - begun
    stopped = chat.answer()
    assert stopped.finish == "stopped"
    assert stopped.text
    speed = cost(stopped).tokens_per_second
    rest = (LIMIT - cost(stopped).new_tokens) / speed
    assert waited < rest / 2, f"stopped after {waited:.2f} s, when the rest of the answer takes {rest:.2f} s"

    chat.terminal.press("ctrl+r")
    whole = chat.answer(2)
    assert whole.finish == "length"
    assert whole.text.startswith(stopped.text)
    assert cost(whole).reused_tokens == cost(stopped).prompt_tokens - 1


def test_a_question_after_a_stopped_answer_reuses_all_that_was_said(chat: Chat) -> None:
    stopped = stop_early(chat)
    chat.ask("What is the capital of France?")
    answer = chat.answer(2)
    assert cost(answer).reused_tokens == cost(stopped).prompt_tokens + cost(stopped).new_tokens - 1
    assert "Paris" in answer.text


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_an_answer_cut_at_the_limit_goes_on_in_the_same_message(chat: Chat, columns: int, lines: int) -> None:
    chat.resize(columns, lines)
    chat.ask(LIST)
    cut = chat.answer()
    assert cut.finish == "length"
    assert cost(cut).new_tokens == LIMIT
    chat.sees("cut at the token limit · /continue goes on")

    chat.ask("/continue")
    chat.sees(lambda text: "cut at the token limit" not in text)
    whole = chat.answer(where=has_gone_on)
    assert whole.id == cut.id
    assert whole.text.startswith(cut.text)
    assert len(whole.text) > len(cut.text)
    assert cost(whole).resumed_tokens == LIMIT
    assert cost(whole).new_tokens == 2 * LIMIT
    assert cost(whole).reused_tokens == cost(cut).prompt_tokens + LIMIT - 1
    assert [message.role for message in chat.sessions[-1].messages.values()] == ["user", "assistant"]
    chat.sees(lambda _: is_shown(chat, whole))
    chat.sees("cut at the token limit · /continue goes on")


def test_a_stopped_answer_goes_on_as_if_it_had_never_stopped(chat: Chat) -> None:
    stopped = stop_early(chat)
    chat.ask("/continue")
    whole = chat.answer(where=has_gone_on)
    assert whole.id == stopped.id
    assert cost(whole).resumed_tokens == cost(stopped).new_tokens
    assert cost(whole).reused_tokens == cost(stopped).prompt_tokens + cost(stopped).new_tokens - 1

    chat.terminal.press("ctrl+r")
    never_stopped = chat.answer(2)
    assert never_stopped.finish == "length"
    assert whole.text.startswith(never_stopped.text)


def test_an_answer_is_stopped_and_goes_on_more_than_once(chat: Chat) -> None:
    chat.ask(LIST)
    undisturbed = chat.answer().text
    chat.new()
    answer = stop_early(chat)
    for _ in range(2):
        before, text = cost(answer).new_tokens, answer.text
        chat.ask("/continue")
        chat.streams()
        chat.terminal.press("esc")
        answer = chat.answer(where=partial(has_gone_on, since=before))
        assert answer.finish == "stopped"
        assert answer.text.startswith(text)
        assert cost(answer).new_tokens > before
    assert answer.text.startswith(undisturbed) or undisturbed.startswith(answer.text)
    assert [message.role for message in chat.sessions[-1].messages.values()] == ["user", "assistant"]
