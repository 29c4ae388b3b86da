"""A session's cache leaves a real device for pinned memory and comes back, and its budgets fit that device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine import zoo
from engine.talk import words
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.warm import default_budgets

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@torch.inference_mode()
def answer(model: Any, cache: SessionCache, prompt: list[int], count: int = 8) -> list[int]:
    said: list[int] = []
    rest = prompt[cache.reuse(prompt) :]
    if len(rest) == 1:
        cache.snapshot()
    while len(said) < count:
        logits = model(input_ids=torch.tensor([rest], device="cuda"), use_cache=True, **cache.arguments).logits
        cache.append(rest)
        rest = [int(logits[0, -1].argmax())]
        said += rest
    return said


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_a_cache_is_pinned_on_the_host_and_says_the_same_when_it_is_back(kind: str) -> None:
    model = zoo.make(kind).to("cuda")
    cache, fresh = SessionCache(model), SessionCache(model)
    prompt = words(40, seed=1)
    prompt += answer(model, cache, prompt) + words(5, seed=2)
    cache.to_host()
    held = [tensor for tensor in cache._tensors() if tensor.numel() > 1]
    assert held
    assert all(tensor.is_pinned() for tensor in held)
    said = answer(model, cache, prompt)
    assert all(tensor.is_cuda for tensor in cache._tensors() if tensor.numel() > 1)
    assert zoo.same_text(model, prompt, answer(model, fresh, prompt), said)


def test_leaving_the_device_gives_its_memory_back() -> None:
    model = zoo.make("llama").to("cuda")
    cache = SessionCache(model)
    answer(model, cache, words(900, seed=3))
    before = torch.cuda.memory_allocated()
    held = cache.nbytes
    cache.to_host()
    assert before - torch.cuda.memory_allocated() >= held


def test_the_default_budgets_fit_what_is_free() -> None:
    device, host = default_budgets("cuda:0")
    assert 0 < device < torch.cuda.mem_get_info(0)[1]
    assert host > 0
