"""Models whose caches cannot be continued are told from those whose can, in every dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine import zoo
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.kvproof import reuse_fault

pytestmark = pytest.mark.engine
IDS = [5, 9, 30, 77, 200]


@torch.no_grad()
def fault(model: Any) -> str:
    return reuse_fault(model, lambda: SessionCache(model), IDS, "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_no_sound_model_is_refused(kind: str, dtype: torch.dtype) -> None:
    assert fault(zoo.make(kind).to(dtype)) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_forgets_its_state_between_parts_is_refused(dtype: torch.dtype, monkeypatch) -> None:
    model = zoo.make("qwen3_next").to(dtype)
    assert fault(model) == ""
    mixer = model.model.layers[0].linear_attn
    forward = type(mixer).forward

    def forgetful(self: Any, hidden_states: Any, cache_params: Any = None, **options: Any) -> Any:
        if hidden_states.shape[1] > 1:
            cache_params.layers[self.layer_idx].reset()
        return forward(self, hidden_states, cache_params=cache_params, **options)

    monkeypatch.setattr(type(mixer), "forward", forgetful)
    assert "wrongly in parts" in fault(model)


def test_a_rope_that_changes_with_the_length_is_refused() -> None:
    model = zoo.make("llama")
    model.config.rope_parameters["rope_type"] = "longrope"
    assert "longrope" in fault(model)
