"""Reusing a KV cache never changes the text, for every kind of cache that transformers builds."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from engine import zoo
from engine.talk import ANSWER, Failed, Talk, failing_at, model_of, reference, words
from quantchat.engine import kvcache
from quantchat.engine.kvcache import SNAPSHOTS, SessionCache
from quantchat.engine.kvlayers import GrowingLayer

pytestmark = pytest.mark.engine

NEVER_CROPPABLE = ("qwen3_next", "lfm2", "falcon_h1", "mamba2")
LONG = 3 * zoo.SLIDING
every_kind = pytest.mark.parametrize("kind", zoo.KINDS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spoken(talk: Talk, prompt: list[int], question: list[int]) -> list[int]:
    """Answer, and return the prompt of the next turn."""
    return prompt + talk.answer(prompt) + question


# Reuse does not change the text


@every_kind
def test_the_reference_is_what_generate_says(kind: str) -> None:
    prompt = words(LONG, seed=1)
    inputs = torch.tensor([prompt])
    with torch.inference_mode():
        generated = model_of(kind).generate(
            inputs, max_new_tokens=ANSWER, do_sample=False, attention_mask=torch.ones_like(inputs)
        )
    assert zoo.same_text(model_of(kind), prompt, reference(kind, prompt), generated[0, LONG:].tolist())


@every_kind
@pytest.mark.parametrize("chunk", [1, 5, zoo.SLIDING, 1000])
def test_a_prompt_in_chunks_is_the_prompt_at_once(kind: str, chunk: int) -> None:
    assert Talk(kind, chunk).right(words(LONG, seed=2))


@every_kind
@pytest.mark.parametrize("first", [6, zoo.SLIDING - ANSWER, LONG])
def test_the_next_turn_computes_only_what_is_new(kind: str, first: int) -> None:
    talk = Talk(kind)
    prompt = spoken(talk, words(first, seed=3), words(8, seed=4))
    assert talk.right(prompt)
    assert talk.reused == first + ANSWER - 1
    prompt = spoken(talk, prompt, words(3, seed=5))
    assert talk.right(prompt)


@every_kind
@pytest.mark.parametrize("first", [6, LONG])
def test_regenerating_computes_one_token(kind: str, first: int) -> None:
    talk = Talk(kind)
    prompt = spoken(talk, words(first, seed=6), words(8, seed=7))
    for _ in range(3):
        assert talk.right(prompt)
    assert talk.reused == len(prompt) - 1


@every_kind
@pytest.mark.parametrize("first", [6, LONG])
def test_an_edited_question_reuses_what_is_before_it(kind: str, first: int) -> None:
    talk = Talk(kind)
    earlier = words(first, seed=8)
    prompt = spoken(talk, earlier, words(9, seed=9))
    talk.answer(prompt)
    assert talk.right([*prompt[:-5], *words(6, seed=10)])
    # At the latest the snapshot before the first answer is good.
    assert talk.reused >= first - 1


@every_kind
def test_another_system_prompt_reuses_nothing_that_it_does_not_share(kind: str) -> None:
    talk = Talk(kind)
    prompt = spoken(talk, words(LONG, seed=11), words(5, seed=12))
    talk.answer(prompt)
    changed = [(prompt[0] + 1) % zoo.VOCABULARY, *prompt[1:]]
    assert talk.right(changed)
    assert talk.reused == 0
    assert talk.right(changed)
    assert talk.reused == len(changed) - 1


@every_kind
def test_a_prompt_shorter_than_the_cache(kind: str) -> None:
    talk = Talk(kind)
    prompt = words(LONG, seed=13)
    talk.answer(prompt)
    for length in (LONG - 4, zoo.SLIDING + 1, 4, 1):
        assert talk.right(prompt[:length])
    assert talk.right(prompt)


@every_kind
def test_the_window_fills_while_an_answer_is_spoken(kind: str) -> None:
    talk = Talk(kind)
    prompt = words(zoo.SLIDING - 3, seed=14)
    assert talk.right(prompt, 2 * zoo.SLIDING)
    assert talk.right(prompt, 2 * zoo.SLIDING)


@every_kind
def test_a_cache_comes_back_from_the_host_as_it_was(kind: str) -> None:
    talk = Talk(kind)
    prompt = spoken(talk, words(LONG, seed=15), words(6, seed=16))
    talk.cache.to_host()
    assert talk.cache.place == "host"
    talk.cache.to_device()
    assert talk.right(prompt)
    assert talk.reused == LONG + ANSWER - 1
    talk.cache.to_host()
    assert talk.right(prompt)
    assert talk.reused == len(prompt) - 1
    assert talk.cache.place == "device"


@every_kind
def test_a_compacted_cache_is_the_same_cache(kind: str) -> None:
    talk = Talk(kind, chunk=1000)
    prompt = spoken(talk, words(LONG, seed=17), words(4, seed=18))
    before = talk.cache.nbytes
    talk.cache.compact()
    assert talk.cache.nbytes <= before
    assert talk.right(prompt)
    assert talk.reused == LONG + ANSWER - 1


@pytest.mark.parametrize("kind", [kind for kind in zoo.KINDS if kind not in NEVER_CROPPABLE])
def test_drafts_that_were_wrong_are_rolled_back(kind: str) -> None:
    talk = Talk(kind)
    prompt = words(zoo.SLIDING - 8, seed=19)
    expected = reference(kind, prompt, 10)
    talk.prefill(prompt)
    talk.compute([expected[0], *words(4, seed=20)])
    assert talk.cache.croppable
    talk.cache.rollback(4)
    assert talk.cache.ids == [*prompt, expected[0]]
    said = [*expected[:2], *talk.decode(talk.compute(expected[1:2]), 8)]
    assert zoo.same_text(talk.model, prompt, expected, said)


@every_kind
def test_what_cannot_be_rolled_back_says_so(kind: str) -> None:
    talk = Talk(kind)
    talk.answer(words(LONG, seed=21))
    assert talk.cache.plain == (kind in zoo.FULL_ATTENTION)
    assert talk.cache.croppable == talk.cache.plain
    if talk.cache.croppable:
        talk.cache.rollback(2)
        assert len(talk.cache.ids) == LONG + ANSWER - 3
    else:
        with pytest.raises(ValueError, match="cannot drop"):
            talk.cache.rollback(2)


def test_two_sessions_do_not_mix() -> None:
    for kind in ("llama", "gemma3", "qwen3_next"):
        one, other = Talk(kind), Talk(kind)
        first, second = words(LONG, seed=22), words(LONG, seed=23)
        for _ in range(2):
            rest = one.prefill(first[one.cache.reuse(first) :]), other.prefill(second[other.cache.reuse(second) :])
            said = one.decode(rest[0], ANSWER), other.decode(rest[1], ANSWER)
            assert zoo.same_text(one.model, first, reference(kind, first), said[0])
            assert zoo.same_text(one.model, second, reference(kind, second), said[1])


# A pass that fails leaves nothing wrong behind


@every_kind
@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize("passes", [0, 1, 8])
def test_a_pass_that_fails_at_any_layer_gives_no_wrong_text_later(kind: str, layer: int, passes: int) -> None:
    talk = Talk(kind)
    earlier = words(9, seed=24)
    prompt = spoken(talk, earlier, words(LONG, seed=25))
    with failing_at(talk.model, layer, passes), pytest.raises(Failed):
        talk.answer(prompt)
    assert talk.cache.nbytes > 0
    talk.cache.to_host()
    assert talk.right(prompt)
    with failing_at(talk.model, layer, passes), pytest.raises(Failed):
        talk.answer([*prompt, *reference(kind, prompt), *words(40, seed=26)])
    assert talk.right([*earlier[:-2], *words(5, seed=27)])


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "falcon_h1"])
@pytest.mark.parametrize("taken", [0, 1])
def test_memory_that_runs_out_inside_a_layer_gives_no_wrong_text_later(kind: str, taken: int, monkeypatch) -> None:
    talk = Talk(kind)
    prompt = words(zoo.SLIDING - 4, seed=28)
    talk.answer(prompt, 1)
    kinds = {type(layer) for layer in talk.cache.cache.layers}
    with monkeypatch.context() as patch:
        for layer_kind in kinds:
            patch.setattr(layer_kind, "update", starved(layer_kind.update, taken))
        with pytest.raises(torch.OutOfMemoryError):
            talk.compute(words(2, seed=29))
    assert talk.right([*prompt, *words(1, seed=30)])
    assert talk.right([*prompt, *words(LONG, seed=31)])


def starved(update: Any, taken: int) -> Any:
    """Make a layer's update fail at its keys (0 tensors were taken) or at its values (1)."""

    def failing(function: Any) -> Any:
        left = iter(range(taken))

        def call(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise torch.OutOfMemoryError("no memory")
            return function(*arguments, **options)

        return call

    def starving(*arguments: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "cat", failing(torch.cat))
            patch.setattr(torch.Tensor, "copy_", failing(torch.Tensor.copy_))
            return update(*arguments, **options)

    return starving


def test_a_pass_that_nobody_noted_is_not_trusted() -> None:
    for kind in ("llama", "mistral", "qwen3_next"):
        talk = Talk(kind)
        prompt = words(9, seed=31)
        talk.answer(prompt)
        with torch.inference_mode():
            talk.model(input_ids=torch.tensor([words(3, seed=32)]), use_cache=True, **talk.cache.arguments)
        assert talk.right([*prompt, *reference(kind, prompt), *words(4, seed=33)])


# Snapshots and bytes


@every_kind
def test_the_last_few_snapshots_are_kept_and_only_where_they_are_needed(kind: str) -> None:
    talk = Talk(kind)
    prompt, starts = words(10, seed=34), []
    for turn in range(SNAPSHOTS + 2):
        starts.append(len(prompt) - 1)
        prompt = spoken(talk, prompt, words(12, seed=35 + turn))
    kept = [snapshot.length for snapshot in talk.cache._snapshots]
    assert kept == ([] if kind in zoo.FULL_ATTENTION else starts[-SNAPSHOTS:])
    talk.cache.snapshot()
    talk.cache.snapshot()
    assert len(talk.cache._snapshots) == len(kept)
    talk.cache.reuse(prompt[: starts[-1] + 1])
    assert all(snapshot.length <= starts[-1] for snapshot in talk.cache._snapshots)


@every_kind
def test_a_snapshot_of_words_that_were_edited_away_is_never_restored(kind: str) -> None:
    talk = Talk(kind)
    old = words(10, seed=36)
    talk.answer(old, 1)
    new = [*old[:3], *words(LONG, seed=37)]
    # As when a turn is stopped before its snapshot.
    talk.compute(new[talk.cache.reuse(new) :])
    assert talk.right(new[:12])


@every_kind
def test_no_snapshot_is_taken_of_a_pass_that_failed(kind: str) -> None:
    talk = Talk(kind)
    prompt = words(LONG, seed=38)
    talk.answer(prompt)
    with failing_at(talk.model, 1), pytest.raises(Failed):
        talk.compute(words(3, seed=39))
    talk.cache.snapshot()
    assert talk.right([*talk.cache.ids, *words(3, seed=40)])


def reachable_storage(root: Any) -> int:
    """Bytes of all tensors that an object leads to, found by the garbage collector."""
    seen, storages, waiting = set(), {}, [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif not callable(item):
            waiting += gc.get_referents(item)
    return sum(storages.values())


@every_kind
def test_nbytes_is_the_storage_that_is_held(kind: str) -> None:
    talk = Talk(kind)
    assert talk.cache.nbytes <= 64
    prompt = words(LONG, seed=40)
    for _ in range(2):
        prompt = spoken(talk, prompt, words(20, seed=41))
        assert talk.cache.nbytes == reachable_storage(vars(talk.cache))
        talk.cache.to_host()
        assert talk.cache.nbytes == reachable_storage(vars(talk.cache))
    talk.cache.reuse(words(3, seed=42))
    assert talk.cache.nbytes <= 64


def test_waiting_costs_what_is_held_and_not_what_was() -> None:
    talk = Talk("llama", chunk=1000)
    prompt = words(900, seed=43)
    talk.answer(prompt, 1)
    full = talk.cache.nbytes
    talk.cache.reuse(prompt[:50])
    assert talk.cache.nbytes == full
    talk.cache.compact()
    assert talk.cache.nbytes <= full / 10
    assert talk.right(prompt[:60])


# Which layers are recognised


class Strange(DynamicLayer):
    """A layer that nothing is known about."""


def test_an_unknown_layer_only_takes_more_tokens_or_starts_anew(monkeypatch) -> None:
    model = model_of("llama")

    def with_strange_layer(config: Any) -> Any:
        made = original(config=config)
        made.layers[1] = Strange()
        return made

    original = kvcache.DynamicCache
    monkeypatch.setattr(kvcache, "DynamicCache", with_strange_layer)
    talk = Talk("llama")
    assert not talk.cache.plain
    assert not talk.cache.croppable
    prompt = spoken(talk, words(LONG, seed=44), words(4, seed=45))
    assert talk.right(prompt)
    assert talk.reused == LONG + ANSWER - 1
    assert talk.right(prompt)
    assert talk.reused == 0
    assert talk.cache._snapshots == []
    assert SessionCache(model).croppable is False


def test_every_full_attention_layer_grows_in_place() -> None:
    for kind in zoo.FULL_ATTENTION:
        assert all(type(layer) is GrowingLayer for layer in SessionCache(model_of(kind)).cache.layers)


# Anything in any order

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "again", "edit", "cut", "system", "host", "fail", "other"]), st.integers(0, 99)
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3_next", "falcon_h1"])
@settings(deadline=None, max_examples=25)
@given(steps=STEPS)
def test_any_sequence_of_prompts_has_the_text_without_reuse(kind: str, steps: list[tuple[str, int]]) -> None:
    talk, other = Talk(kind), Talk(kind)
    prompt = words(5, seed=50)
    for action, number in steps:
        if action == "next":
            prompt = [*prompt, *reference(kind, prompt, 3), *words(1 + number % 12, seed=number)]
        elif action == "edit":
            place = 1 + number % len(prompt)
            prompt = [*prompt[:place], *words(1 + number % 5, seed=number)]
        elif action == "cut":
            prompt = prompt[: 1 + number % len(prompt)]
        elif action == "system":
            prompt = [*words(1 + number % 3, seed=number), *prompt[1:]]
        elif action == "host":
            talk.cache.to_host()
        elif action == "fail":
            with failing_at(talk.model, number % 3, number % 4), pytest.raises(Failed):
                talk.answer([*prompt, *words(40, seed=number)])
        elif action == "other":
            talk, other = other, talk
        assert talk.right(prompt, 3)
