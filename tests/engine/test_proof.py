"""The warm-up's proof that a model may be served by our own loop with a KV cache."""

from __future__ import annotations

import pytest

from engine import zoo

pytestmark = pytest.mark.engine


class Words:
    """A tokenizer as far as the warm-up needs one."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [3, 17, 42, 8, 23]}


@pytest.fixture(scope="module")
def prove():
    from quantchat.engine import checks, quiet
    from quantchat.engine.kvcache import SessionCache

    quiet.set_environment()
    return lambda model: checks.warm_up(model, Words(), "cpu", lambda: SessionCache(model))


@pytest.fixture
def llama():
    return zoo.make("llama")


def test_a_sound_model_passes_and_its_bytes_per_token_are_measured(prove, llama) -> None:
    proof = prove(llama)
    assert proof.fault == ""
    config = llama.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element = next(llama.parameters()).element_size()
    assert proof.kv_token_bytes == 2 * config.num_hidden_layers * config.num_key_value_heads * head * element


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rounding_is_no_fault(prove, llama, dtype: str) -> None:
    import torch

    assert prove(llama.to(getattr(torch, dtype))).fault == ""


def test_a_cache_that_raises_is_a_reason(prove, llama, monkeypatch) -> None:
    forward = type(llama).forward

    def refusing(self, *arguments, past_key_values=None, **options):
        if past_key_values is not None:
            raise ValueError("no cache of this kind")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(llama), "forward", refusing)
    fault = prove(llama).fault
    assert "its KV cache failed in the warm-up: ValueError: no cache of this kind" in fault


def test_a_model_that_loses_what_is_cached_is_a_reason(prove, llama, monkeypatch) -> None:
    forward = type(llama).forward

    def forgetful(self, *arguments, past_key_values=None, **options):
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(llama), "forward", forgetful)
    assert "other logits with a KV cache than without" in prove(llama).fault


def test_a_model_that_computes_no_numbers_from_a_cache_is_a_reason(prove, llama, monkeypatch) -> None:
    forward = type(llama).forward

    def broken(self, *arguments, past_key_values=None, **options):
        output = forward(self, *arguments, past_key_values=past_key_values, **options)
        if past_key_values is not None:
            output.logits = output.logits * float("nan")
        return output

    monkeypatch.setattr(type(llama), "forward", broken)
    assert "NaN" in prove(llama).fault


def test_full_memory_is_no_fault_of_the_cache(prove, llama, monkeypatch) -> None:
    forward = type(llama).forward

    def starving(self, *arguments, past_key_values=None, **options):
        if past_key_values is not None:
            raise MemoryError
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(llama), "forward", starving)
    with pytest.raises(MemoryError):
        prove(llama)
