"""The first forward pass of a model, and whether our own loop with a KV cache computes the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine import memory
from quantchat.engine.kvproof import reuse_fault
from quantchat.engine.tensors import DAMAGED_REMEDY
from quantchat.errors import LoadError

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

logger = logging.getLogger(__name__)

WARM_UP = "The capital of France is"
SAME, ALIKE = 0.98, 0.9
"""Cosine of two logit vectors, each less its mean, from which they count as the same; with the same best token, alike.

The cached step sums the same products in another order, and float16 and bfloat16 keep 11 and 8 bits: some percent of
difference after many layers, and another best token where two are tied. A cache that is used wrongly (lost prefix,
shifted positions) gives the logits of another text, whose cosine is far lower.
"""


@dataclass(frozen=True)
class Proof:
    """What the warm-up showed.

    Attributes:
        fault: Why the model cannot be served by our own loop; empty if it can.
        kv_token_bytes: Bytes that a token adds to the KV cache; 0 if nothing grows with the text.
    """

    fault: str = ""
    kv_token_bytes: int = 0


def warm_up(model: Any, tokenizer: Any, device: str, new_cache: Callable[[], SessionCache]) -> Proof:
    """Run one forward pass, which also packs the weights on the CPU, judge its logits, and repeat it with a cache.

    Raises:
        LoadError: if the logits are not numbers, or the same for every token.
    """
    known = model.get_input_embeddings().num_embeddings
    ids = [token for token in tokenizer(WARM_UP)["input_ids"] if token < known]
    ids = ids if len(ids) > 1 else [0, 1, 2]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1].float()
        if not bool(torch.isfinite(logits).all()):
            raise LoadError("The model computes no numbers", "The warm-up gave NaN or infinite logits.", DAMAGED_REMEDY)
        if float(logits.max() - logits.min()) == 0.0:
            raise LoadError("The model says the same of every word", "The warm-up gave equal logits.", DAMAGED_REMEDY)
        return _prove_cache(model, new_cache, ids, logits)


def _prove_cache(model: Any, new_cache: Callable[[], SessionCache], ids: list[int], expected: Any) -> Proof:
    """Compute all tokens but the last into a cache, the last one from it, and compare the logits with uncached ones."""
    try:
        cache = new_cache()
        for part in (ids[:-1], ids[-1:]):
            inputs = torch.tensor([part], device=expected.device)
            output = model(input_ids=inputs, use_cache=True, **cache.arguments)
            cache.append(part)
        found = output.logits[0, -1].float()
        fault = _difference(found, expected) or reuse_fault(model, new_cache, ids, expected.device)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise
        logger.exception("the model does not take our cache")
        return Proof(fault=f"its KV cache failed in the warm-up: {type(error).__name__}: {str(error)[:200]}")
    return Proof(fault=fault, kv_token_bytes=_growth(cache.cache, len(ids)))


def _difference(found: Any, expected: Any) -> str:
    if not bool(torch.isfinite(found).all()):
        return "the warm-up gave NaN or infinite logits with a KV cache"
    likeness = float(torch.cosine_similarity(found - found.mean(), expected - expected.mean(), dim=0))
    if likeness >= SAME or (likeness >= ALIKE and int(found.argmax()) == int(expected.argmax())):
        return ""
    return f"the warm-up gave other logits with a KV cache than without (cosine {likeness:.2f})"


def _growth(cache: Any, tokens: int) -> int:
    """Bytes per token of the layers whose keys and values grow with the text."""
    total = 0
    for layer in getattr(cache, "layers", ()):
        states = [
            state for state in (getattr(layer, "keys", None), getattr(layer, "values", None)) if state is not None
        ]
        if states and not getattr(layer, "is_sliding", False) and states[0].shape[-2] == tokens:
            total += sum(state.numel() * state.element_size() for state in states)
    return total // tokens
