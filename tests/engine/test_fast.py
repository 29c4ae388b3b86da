"""The captured decode path under the scheduler, its step run without a graph: who is on it, and what everybody says."""

from __future__ import annotations

import msgspec
import pytest
import torch

from engine import words
from engine.words import Bench, text
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import graphs
from quantchat.engine.scheduler import Scheduler

pytestmark = pytest.mark.engine
GREEDY = SamplingSettings(temperature=0, max_new_tokens=40)
PROMPTS = [text(*range(10, 30)), text(3, 1, 4), text(*range(90, 102)), text(7, 7), text(55)]


@pytest.fixture(scope="module")
def llama():
    torch.set_num_threads(1)
    return words.loaded("llama")


def fast(model, free=lambda: 1 << 40, window=128) -> tuple[Bench, graphs.GraphDecoder, list[int]]:
    """A scheduler with the fast path, and the tokens that went through it."""
    decoder = graphs.build(model.model, window, lambda step: step, free, 16)
    assert isinstance(decoder, graphs.GraphDecoder)
    taken: list[int] = []
    plain = decoder.step

    def step(token: int):
        taken.append(token)
        return plain(token)

    decoder.step = step
    bench = Bench(model)
    bench.scheduler = Scheduler(model, bench.states, bench._told, decoder)
    return bench, decoder, taken


def test_one_turn_goes_through_it_and_says_the_same(llama) -> None:
    bench, _, taken = fast(llama)
    said, _ = bench.answer(PROMPTS[0], GREEDY)
    assert said == Bench(llama).answer(PROMPTS[0], GREEDY)[0]
    assert len(taken) >= 39


@pytest.mark.parametrize("count", [2, 3, 5])
def test_several_take_turns_or_share_a_pass(llama, count: int) -> None:
    bench, _, taken = fast(llama)
    names = [bench.start(prompt, GREEDY, session=prompt) for prompt in PROMPTS[:count]]
    bench.run()
    for name, prompt in zip(names, PROMPTS, strict=False):
        assert bench.said(name) == Bench(llama).answer(prompt, GREEDY)[0]
    assert (len(taken) > 60) == (count <= 3)


def test_the_next_turn_reuses_what_was_computed_there(llama) -> None:
    bench, _, _ = fast(llama)
    said, _ = bench.answer(PROMPTS[0], GREEDY, session="s")
    messages = [ChatMessage("user", PROMPTS[0]), ChatMessage("assistant", said), ChatMessage("user", "w9")]
    again, end = bench.answer(messages, GREEDY, session="s")
    assert end.statistics.reused_tokens >= end.statistics.prompt_tokens - 6
    assert again == Bench(llama).answer(messages, GREEDY)[0]


def test_a_stop_in_the_middle_keeps_what_was_computed(llama) -> None:
    bench, decoder, taken = fast(llama)
    name = bench.start(PROMPTS[0], GREEDY, lambda: len(taken) >= 10, session="s")
    assert bench.run()[name].reason == "stopped"
    assert bench.states.warm.listing()[0].tokens >= 20 + 10
    with pytest.raises(RuntimeError, match="attached"):
        decoder.step(1)


def test_without_room_for_a_longer_buffer_the_answer_goes_on_the_ordinary_way(llama) -> None:
    room = [1 << 40]
    bench, _, taken = fast(llama, free=lambda: room[0])
    name = bench.start(PROMPTS[0], msgspec.structs.replace(GREEDY, max_new_tokens=60))
    while len(taken) < 4:
        bench.scheduler.step()
    room[0] = 0
    end = bench.run()[name]
    assert end.statistics.new_tokens == 60
    whole = Bench(llama).answer(PROMPTS[0], msgspec.structs.replace(GREEDY, max_new_tokens=60))[0]
    assert bench.said(name) == whole
    assert len(taken) < 50
