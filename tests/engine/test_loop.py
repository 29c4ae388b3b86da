"""Our prefill and decode loop against transformers' `generate`, over every kind of cache."""

from __future__ import annotations

import msgspec
import pytest
import torch

from engine import words, zoo
from engine.words import Bench, text
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine import turn as turns
from quantchat.engine.lookup import PromptLookup

pytestmark = pytest.mark.engine
GREEDY = SamplingSettings(temperature=0, max_new_tokens=24)
PROMPT = text(*(7 * number % 200 for number in range(40)))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama():
    return words.loaded("llama")


def ids_of(said: str) -> list[int]:
    return words.tokenizer()(said, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_greedy_text_is_that_of_generate(kind: str) -> None:
    model = words.loaded(kind)
    ours, ours_end = Bench(model).answer(PROMPT, GREEDY)
    theirs, their_end = Bench(msgspec_replace(model, decoding="generate")).answer(PROMPT, GREEDY)
    assert len(ids_of(ours)) == 24
    prompt = ids_of(f"<user> {PROMPT} <end> <assistant>")
    assert zoo.same_text(model.model, prompt, ids_of(ours), ids_of(theirs))
    assert ours_end.reason == their_end.reason == "length"


def msgspec_replace(model, **changes):
    from dataclasses import replace

    return replace(model, **changes)


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_chunked_prefill_changes_nothing(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = words.loaded(kind)
    whole = Bench(model).answer(PROMPT, GREEDY)[0]
    monkeypatch.setattr(turns, "CPU_CHUNK", chunk)
    bench = Bench(model)
    cut = bench.answer(PROMPT, GREEDY)[0]
    prompt = ids_of(f"<user> {PROMPT} <end> <assistant>")
    assert zoo.same_text(model.model, prompt, ids_of(whole), ids_of(cut))
    done = [event.done for event in bench.events if isinstance(event, p.Prefill)]
    assert done == sorted(done)
    assert len(done) > len(prompt) // chunk
    assert done[-1] == len(prompt)


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_the_next_turn_reuses_what_it_shares_and_says_the_same(kind: str) -> None:
    model = words.loaded(kind)
    warm, cold = Bench(model), Bench(model)
    messages = [ChatMessage("user", PROMPT)]
    for question in (text(3, 4), text(5, 6, 7)):
        said, _ = warm.answer(messages, GREEDY, session="s")
        messages += [ChatMessage("assistant", said), ChatMessage("user", question)]
        reused, end = warm.answer(messages, GREEDY, session="s")
        anew, _ = cold.answer(messages, GREEDY)
        prompt = end.statistics.prompt_tokens
        assert zoo.same_text(model.model, ids_of(render(messages)), ids_of(reused), ids_of(anew))
        # All but the end mark and the new question.
        assert end.statistics.reused_tokens >= prompt - len(ids_of(question)) - 6
        messages[-1] = ChatMessage("user", question)


def render(messages: list[ChatMessage]) -> str:
    return "".join(f"<{m.role}> {m.content} <end> " for m in messages) + "<assistant>"


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_regenerating_reuses_the_whole_prompt_but_its_last_token(kind: str) -> None:
    bench = Bench(words.loaded(kind))
    first, end = bench.answer(PROMPT, GREEDY, session="s")
    again, again_end = bench.answer(PROMPT, GREEDY, session="s")
    assert again == first
    assert again_end.statistics.reused_tokens == end.statistics.prompt_tokens - 1


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_turns_side_by_side_say_what_each_says_alone(kind: str) -> None:
    model = words.loaded(kind)
    prompts = [PROMPT, text(9, 8, 7), text(*range(100, 125))]
    alone = [Bench(model).answer(prompt, GREEDY)[0] for prompt in prompts]
    bench = Bench(model)
    names = [
        bench.start(prompt, msgspec.structs.replace(GREEDY, max_new_tokens=24 - 4 * number), session=f"s{number}")
        for number, prompt in enumerate(prompts)
    ]
    bench.run()
    for number, (name, prompt, whole) in enumerate(zip(names, prompts, alone, strict=True)):
        said = ids_of(bench.said(name))
        assert len(said) == 24 - 4 * number
        asked = ids_of(f"<user> {prompt} <end> <assistant>")
        assert zoo.same_text(model.model, asked, said, ids_of(whole)[: len(said)])


def test_several_answers_share_a_pass(llama) -> None:
    passes = []
    handle = llama.model.register_forward_pre_hook(
        lambda _, __, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    bench = Bench(llama)
    for number in range(3):
        bench.start(text(number, 50 + number), GREEDY, session=f"s{number}")
    ends = bench.run()
    handle.remove()
    assert len(ends) == 3
    assert passes.count((3, 1)) >= 20


def test_what_was_computed_together_is_reused(llama) -> None:
    bench = Bench(llama)
    names = [bench.start(PROMPT, GREEDY, session="a"), bench.start(text(1, 2), GREEDY, session="b")]
    bench.run()
    for session, prompt, name in (("a", PROMPT, names[0]), ("b", text(1, 2), names[1])):
        messages = [ChatMessage("user", prompt), ChatMessage("assistant", bench.said(name)), ChatMessage("user", "w9")]
        said, end = bench.answer(messages, GREEDY, session=session)
        assert end.statistics.reused_tokens >= end.statistics.prompt_tokens - 6
        assert said == Bench(llama).answer(messages, GREEDY)[0]


def test_one_turn_that_fails_ends_alone(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(llama)
    names = [bench.start(text(number, 3), GREEDY, session=f"s{number}") for number in range(3)]
    for _ in range(6):
        bench.scheduler.step()
    broken = next(turn for turn in bench.scheduler._turns if turn.name == names[1])

    def fail(_logits) -> int:
        raise RuntimeError("the sampler fell over")

    monkeypatch.setattr(broken, "take", fail)
    ends = bench.run()
    assert isinstance(ends[names[1]], p.Failed)
    assert "fell over" in ends[names[1]].error.detail
    for number in (0, 2):
        assert isinstance(ends[names[number]], p.Finished)
        assert bench.said(names[number]) == Bench(llama).answer(text(number, 3), GREEDY)[0]


def test_a_batch_that_cannot_be_computed_is_parted_and_goes_on(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantchat.engine.forward import Forward

    calls = []

    def fail(*_) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("no such kernel for two rows")
        return together(*_)

    together = Forward.together
    monkeypatch.setattr(Forward, "together", fail)
    bench = Bench(llama)
    names = [bench.start(text(number, 3), GREEDY, session=f"s{number}") for number in range(2)]
    bench.run()
    assert [bench.said(name) for name in names] == [
        Bench(llama).answer(text(number, 3), GREEDY)[0] for number in range(2)
    ]
    assert len(calls) == 6


def test_stop_of_one_leaves_the_other(llama) -> None:
    bench = Bench(llama)
    stopped: list[bool] = []
    first = bench.start(PROMPT, msgspec.structs.replace(GREEDY, max_new_tokens=200), lambda: bool(stopped), session="a")
    second = bench.start(text(4, 5), GREEDY, session="b")
    for _ in range(8):
        bench.scheduler.step()
    stopped.append(True)
    ends = bench.run()
    assert (ends[first].reason, ends[second].reason) == ("stopped", "length")
    assert 0 < ends[first].statistics.new_tokens < 24
    assert bench.said(second) == Bench(llama).answer(text(4, 5), GREEDY)[0]


def test_stop_inside_a_prefill_pass_leaves_between_layers_and_the_cache_stays_right(llama) -> None:
    bench = Bench(llama)
    asked = iter(range(1000))
    name = bench.start(PROMPT, GREEDY, lambda: next(asked) >= 2, session="s")
    ends = bench.run()
    assert (ends[name].reason, ends[name].statistics.new_tokens) == ("stopped", 0)
    assert bench.answer(PROMPT, GREEDY, session="s")[0] == Bench(llama).answer(PROMPT, GREEDY)[0]


def test_same_seed_same_text_alone_and_beside_others(llama) -> None:
    sampled = SamplingSettings(temperature=1.0, top_k=40, max_new_tokens=24, seed=5)
    alone = Bench(llama).answer(PROMPT, sampled)[0]
    bench = Bench(llama)
    name = bench.start(PROMPT, sampled, session="a")
    bench.start(text(3, 3, 3), msgspec.structs.replace(sampled, seed=8), session="b")
    bench.run()
    assert bench.said(name) == alone


REPEATING = text(*(list(range(30, 50)) * 4))


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSettings(temperature=0.8, top_k=20, max_new_tokens=24)])
def test_drafts_never_change_the_text(llama, sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantchat.engine.answering._seed", lambda _: 7)
    # Guesses of every length, right ones and wrong ones, whatever they cost.
    monkeypatch.setattr(
        PromptLookup, "propose", lambda self, limit: self._ids[-40:][: min(limit, 5)] if self._plain else []
    )
    bench = Bench(llama)
    drafted, end = bench.answer(REPEATING, sampling, session="s")
    monkeypatch.setattr(PromptLookup, "propose", lambda *_: [])
    assert drafted == Bench(llama).answer(REPEATING, sampling)[0]
    assert end.statistics.drafted > 20
    assert end.statistics.new_tokens == 24
    again, after = bench.answer(REPEATING, sampling, session="s")
    assert (again, after.statistics.reused_tokens) == (drafted, end.statistics.prompt_tokens - 1)


def test_drafts_that_are_right_save_passes(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(Bench(llama).answer(REPEATING, GREEDY)[0].split())
    whole = ids_of(" ".join(said))
    passes = []
    handle = llama.model.register_forward_pre_hook(lambda *_: passes.append(1))

    def foresee(self, limit: int) -> list[int]:
        if not self._plain:
            return []
        made = len(self._ids) - len(ids_of(f"<user> {REPEATING} <end> <assistant>"))
        return whole[made : made + min(limit, 5)]

    monkeypatch.setattr(PromptLookup, "propose", foresee)
    end = Bench(llama).answer(REPEATING, GREEDY)[1]
    handle.remove()
    assert end.statistics.accepted == end.statistics.drafted >= 16
    assert len(passes) <= 8


def test_a_set_seed_is_answered_without_drafts(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptLookup, "propose", lambda *_: pytest.fail("drafts depend on the clock"))
    Bench(llama).answer(REPEATING, SamplingSettings(temperature=0.8, seed=3, max_new_tokens=4))
