"""Answers that are cut and go on, and conversations that outgrow their window, through the worker and a real model."""

from __future__ import annotations

import msgspec
import pytest

from engine.rig import GREEDY, Rig, asking
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p

pytestmark = pytest.mark.engine
LENGTH = 24


def limited(tokens: int) -> SamplingSettings:
    return msgspec.structs.replace(GREEDY, max_new_tokens=tokens)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 13, 23])
def test_an_answer_in_two_parts_is_the_answer_in_one(gptq: Rig, cut: int) -> None:
    whole, _ = gptq.answer(sampling=limited(LENGTH))
    begun, end = gptq.answer(sampling=limited(cut), session=f"cut{cut}")
    assert end.reason == "length"
    rest, last = gptq.answer(sampling=limited(LENGTH - cut), session=f"cut{cut}", resume=p.Partial(text=begun))
    # The random model cuts characters into bytes, and a part may end inside of one.
    assert begun + rest == whole
    assert last.statistics.reused_tokens == end.statistics.prompt_tokens + cut - 1
    assert last.statistics.new_tokens == LENGTH - cut


def test_an_answer_that_goes_on_elsewhere_has_the_same_words_before_it(gptq: Rig) -> None:
    begun, end = gptq.answer(sampling=limited(12), session="here")
    _, last = gptq.answer(sampling=limited(4), session="there", resume=p.Partial(text=begun))
    assert isinstance(last, p.Finished)
    assert last.statistics.prompt_tokens > end.statistics.prompt_tokens


def told(rig: Rig, turn: str) -> p.Prefill:
    return next(event for event in rig.events if isinstance(event, p.Prefill) and event.turn == turn)


def test_what_is_counted_is_what_is_sent_and_turns_leave_rarely(gptq: Rig) -> None:
    conversation, dropped, reused = [ChatMessage("system", "law")], [], []
    for number in range(12):
        conversation.append(asking(f"What is counted in the river number {number}?")[0])
        gptq.worker.submit(
            p.CountTokens(request="count", messages=list(conversation), session="long", reserve=GREEDY.max_new_tokens)
        )
        count = gptq.wait(p.TokenCount)
        answer, end = gptq.answer(list(conversation), session="long")
        first = told(gptq, end.turn)
        assert (first.dropped, first.total) == (count.dropped, count.tokens)
        assert first.total + count.reserve <= count.window
        dropped.append(first.dropped)
        reused.append(end.statistics.reused_tokens)
        conversation.append(ChatMessage("assistant", answer))
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0
    assert all(count % 2 == 0 for count in dropped)
    steady = [now for now, before, kept in zip(reused[1:], dropped, dropped[1:], strict=False) if before == kept]
    moved = [now for now, before, kept in zip(reused[1:], dropped, dropped[1:], strict=False) if before != kept]
    assert len(moved) < len(steady)
    assert min(steady) > max(moved)


def test_a_question_that_alone_is_too_long_is_refused_when_counted_and_when_sent(gptq: Rig) -> None:
    messages = asking("river " * 400)
    gptq.worker.submit(p.CountTokens(request="count", messages=messages, session="x", reserve=8))
    counted = gptq.wait(p.RequestFailed)
    _, sent = gptq.answer(messages, session="x")
    assert isinstance(sent, p.Failed)
    assert counted.error == sent.error
    assert counted.error.code == "context-full"
