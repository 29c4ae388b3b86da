"""Turns when something fails between their steps: nobody else's text suffers, and every turn has one end."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch

from engine import words
from engine.talk import failing_at
from engine.words import Bench, text
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import graphs, memory, static
from quantchat.engine import protocol as p
from quantchat.engine.forward import Forward, TurnStopped
from quantchat.engine.kvlayers import GrowingLayer
from quantchat.engine.scheduler import Scheduler
from quantchat.engine.static import Bucket

pytestmark = pytest.mark.engine
GREEDY = SamplingSettings(temperature=0, max_new_tokens=24)
PROMPTS = [text(*(7 * number % 200 for number in range(40))), text(9, 8, 7), text(*range(100, 125))]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama():
    return words.loaded("llama")


@pytest.fixture(scope="module")
def alone(llama) -> list[str]:
    return [Bench(llama).answer(prompt, GREEDY)[0] for prompt in PROMPTS]


def passes_of(model) -> tuple[list[int], object]:
    """The lengths of the passes through the model from now on."""
    lengths: list[int] = []
    handle = model.model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths, handle


def no_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("layer", [0, 3])
def test_no_memory_to_part_a_batch_changes_nobodys_text(llama, alone, layer, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(llama)
    short = msgspec.structs.replace(GREEDY, max_new_tokens=9)
    names = [bench.start(PROMPTS[0], GREEDY), bench.start(PROMPTS[1], short), bench.start(PROMPTS[2], GREEDY)]
    while bench.scheduler._batch is None:
        bench.scheduler.step()
    parted = [one for turn in bench.scheduler._batch.turns for one in turn.cache._cache.layers][layer]
    update = GrowingLayer.update

    def full(self, *states, **more):
        if self is parted:
            monkeypatch.setattr(GrowingLayer, "update", update)
            no_memory()
        return update(self, *states, **more)

    monkeypatch.setattr(GrowingLayer, "update", full)
    ends = bench.run()
    assert GrowingLayer.update is update
    assert [type(ends[name]) for name in names] == [p.Finished] * 3
    assert [bench.said(name) for name in names] == [alone[0], " ".join(alone[1].split()[:9]), alone[2]]


def test_what_a_batch_computed_before_its_pass_failed_is_not_computed_again(
    llama, alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(llama)
    names = [bench.start(prompt, GREEDY, session=prompt) for prompt in PROMPTS]
    while bench.scheduler._batch is None or bench.scheduler._batch._steps < 6:
        bench.scheduler.step()
    lengths, handle = passes_of(llama)
    with failing_at(llama.model, -1):
        # The first layer has then written a token of it.
        bench.scheduler._logits_of(bench.scheduler._batch.turns)
    bench.run()
    handle.remove()
    assert set(lengths) == {1}
    assert [bench.said(name) for name in names] == alone


def test_what_cannot_be_taken_back_from_the_captured_path_is_computed_again(
    llama, alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(llama)
    decoder = graphs.build(llama.model, 128, lambda step: step, lambda: 1 << 40, 16)
    assert isinstance(decoder, graphs.GraphDecoder)
    bench.scheduler = Scheduler(llama, bench.states, bench._told, decoder)
    failures = iter([True, False, True])
    store = Bucket.store

    def full(self, *arguments) -> None:
        if next(failures, False):
            no_memory()
        store(self, *arguments)

    monkeypatch.setattr(Bucket, "store", full)
    names = [bench.start(prompt, GREEDY, session=prompt) for prompt in PROMPTS[:2]]
    ends = bench.run()
    assert [type(ends[name]) for name in names] == [p.Finished] * 2
    assert [bench.said(name) for name in names] == alone[:2]


class Panic(BaseException):
    """As the Rust libraries raise it."""


@pytest.mark.parametrize("error", [RuntimeError, Panic])
def test_a_turn_whose_end_fails_has_one_end_all_the_same(llama, error, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(llama)
    names = [bench.start(prompt, GREEDY) for prompt in PROMPTS[:2]]

    def fall_over() -> None:
        raise error("the last words are lost")

    monkeypatch.setattr(bench.scheduler._turns[0], "finish", fall_over)
    ends = bench.run()
    assert [type(ends[name]) for name in names] == [p.Failed, p.Finished]


def test_when_even_the_report_of_an_end_fails_the_turn_is_still_named(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(llama)
    name = bench.start(PROMPTS[0], GREEDY)
    monkeypatch.setattr(bench.scheduler._turns[0], "finish", no_memory)
    monkeypatch.setattr(memory, "give_back", lambda: pytest.fail("the device is gone"))
    with pytest.raises(pytest.fail.Exception, match="gone"):
        bench.run()
    assert bench.scheduler.abandon() == [name]


def test_a_session_whose_turn_failed_is_no_longer_told_as_warm(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(llama)
    bench.answer(PROMPTS[0], GREEDY, session="a")
    bench.answer(PROMPTS[1], GREEDY, session="b")
    bench.start(PROMPTS[0], GREEDY, session="a")
    monkeypatch.setattr(bench.scheduler._turns[0], "take", fail)
    bench.run()
    told = [event for event in bench.events if isinstance(event, p.Warm)]
    assert [warm.session for warm in told[-1].sessions] == ["b"]


def fail(*_: object) -> None:
    raise RuntimeError("fell over")


def test_a_decode_step_that_cannot_even_be_tried_is_refused(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "layout", fail)
    refused = graphs.build(llama.model, 128, lambda step: step, lambda: 1 << 40)
    assert isinstance(refused, static.Refusal)
    assert "fell over" in refused.reason


def test_a_long_prompt_makes_room_before_it_is_computed(llama) -> None:
    token_bytes = 2 * 2 * 2 * 16 * 4
    report = msgspec.structs.replace(llama.report, kv_token_bytes=token_bytes)
    bench = Bench(replace(llama, report=report), budget=500 * token_bytes)
    for session in "ab":
        bench.answer(PROMPTS[0], GREEDY, session=session)
    bench.start(text(*range(200)) + " " + text(*range(200)), GREEDY)
    bench.scheduler.step()
    assert len(bench.scheduler._turns[0].cache.ids) < 300
    kept = bench.states.warm.listing()
    assert [(warm.session, warm.place) for warm in kept] == [("b", "device"), ("a", "host")]


def test_a_gpu_is_never_many_layers_behind_the_question_whether_to_go_on(llama, monkeypatch) -> None:
    recorded, awaited = [], []

    class Event:
        def record(self, stream: str) -> None:
            recorded.append(self)
            assert stream == "stream of cuda:0"

        def synchronize(self) -> None:
            awaited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    forward = Forward(llama)
    forward.device = "cuda:0"
    asked = []

    def cancelled() -> bool:
        asked.append(len(recorded) - len(awaited))
        return len(asked) == 6

    tokens = torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), forward.interruptible(cancelled):
        for _ in range(2):
            llama.model(input_ids=tokens)
        with pytest.raises(TurnStopped):
            llama.model(input_ids=tokens)
    assert asked == [1, 2, 2, 2, 2, 2]
    assert awaited == recorded[:4]
