"""Layers that grow in place hold the same as transformers' own, whatever is done to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from quantchat.engine.kvlayers import STEP, TOKENS, GrowingHybridLayer, GrowingLayer

pytestmark = pytest.mark.engine
HEADS, KEY, VALUE = 2, 4, 6


def states(batch: int, tokens: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn((batch, HEADS, tokens, KEY), generator=generator).to(dtype)
    return keys, torch.randn((batch, HEADS, tokens, VALUE), generator=generator).to(dtype)


def same(ours: Any, theirs: Any) -> bool:
    if ours.get_seq_length() != theirs.get_seq_length():
        return False
    return not theirs.get_seq_length() or (
        torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    )


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 700)),
        st.tuples(st.just("crop"), st.integers(0, 400)),
        st.tuples(st.sampled_from(["reorder", "select", "repeat", "offload", "reset"]), st.integers(0, 3)),
    ),
    max_size=12,
)


def apply(layer: Any, operation: str, number: int, seed: int) -> None:
    if operation == "update":
        batch = layer.keys.shape[0] if layer.is_initialized else 2
        layer.update(*states(batch, number, seed=seed))
    elif operation == "crop":
        layer.crop(-min(number, layer.get_seq_length()))
    elif operation == "reorder" and layer.get_seq_length():
        layer.reorder_cache(torch.arange(layer.keys.shape[0]).flip(0))
    elif operation == "select" and layer.get_seq_length():
        layer.batch_select_indices(torch.tensor([number % layer.keys.shape[0]]))
    elif operation == "repeat" and layer.get_seq_length() and layer.keys.shape[0] < 8:
        layer.batch_repeat_interleave(2)
    elif operation == "offload":
        layer.offload()
        layer.prefetch()
    elif operation == "reset":
        layer.reset()


@settings(deadline=None, max_examples=60)
@given(OPERATIONS)
def test_it_holds_what_a_dynamic_layer_holds(operations: list[tuple[str, int]]) -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    for seed, (operation, number) in enumerate(operations):
        for layer in (ours, theirs):
            apply(layer, operation, number, seed)
        assert same(ours, theirs), operation
        assert ours.get_mask_sizes(3) == theirs.get_mask_sizes(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_update_returns_everything_in_the_dtype_it_came_in(batch: int, dtype: torch.dtype) -> None:
    layer = GrowingLayer()
    keys, values = states(batch, 5, dtype)
    layer.update(keys[:, :, :3], values[:, :, :3])
    all_keys, all_values = layer.update(keys[:, :, 3:], values[:, :, 3:])
    assert all_keys.dtype == dtype
    assert torch.equal(all_keys, keys)
    assert torch.equal(all_values, values)


def test_a_token_is_written_in_place_until_the_room_is_used_up() -> None:
    layer = GrowingLayer()
    layer.update(*states(1, 10))
    place = layer.keys.data_ptr()
    moves = 0
    for step in range(4 * STEP):
        layer.update(*states(1, 1, seed=step))
        moves += layer.keys.data_ptr() != place
        place = layer.keys.data_ptr()
    assert 1 <= moves <= 4
    layer.crop(-500)
    layer.update(*states(1, 500))
    assert layer.keys.data_ptr() == place


def test_a_known_prompt_is_given_its_room_at_once() -> None:
    layer = GrowingLayer()
    layer.wanted = 2000
    places = set()
    for _ in range(20):
        layer.update(*states(1, 100))
        places.add(layer.keys.data_ptr())
    assert len(places) == 1
    assert [buffer.storage.shape[TOKENS] for buffer in layer.buffers] == [2000, 2000]


def test_what_was_handed_out_before_a_growth_is_not_written_to() -> None:
    layer = GrowingLayer()
    before, _ = layer.update(*states(1, 4, seed=1))
    kept = before.clone()
    layer.crop(-4)
    layer.keys, layer.values = states(1, 4, seed=1)
    layer.update(*states(1, STEP, seed=2))
    assert torch.equal(before, kept)


def test_inference_mode_may_begin_and_end_between_passes() -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    modes = [torch.inference_mode, torch.no_grad, torch.inference_mode, torch.no_grad]
    for seed, mode in enumerate(modes):
        with mode():
            for layer in (ours, theirs):
                layer.update(*states(1, 3, seed=seed))
    assert torch.equal(ours.keys, theirs.keys)


def test_a_positive_crop_is_refused_as_newer_transformers_do() -> None:
    layer = GrowingLayer()
    layer.update(*states(1, 4))
    with pytest.raises(ValueError, match="crop"):
        layer.crop(1)
    layer.crop(-9)
    assert layer.get_seq_length() == 0


def test_a_hybrid_layer_keeps_tokens_and_state_apart() -> None:
    layer = GrowingHybridLayer()
    layer.update(*states(1, 4))
    layer.update_recurrent_state(torch.ones(1, 3, 3))
    assert not layer.is_croppable
    layer.keep_first(2)
    assert layer.get_seq_length() == 2
    assert torch.equal(layer.recurrent_states[0], torch.ones(1, 3, 3))
