"""Whether a model computes the same of a prompt in parts as of one at once, which reusing a KV cache relies on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

FIRST, REST = 12, 4
"""Tokens before the cut and behind it."""
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies change with the length of the text: cached keys would have the old ones."""
NOISE = 2.0
"""Times the rounding noise, measured as what the same tokens one by one make of it, that a difference may be."""
LEAST = 0.02
"""Of the logits' deviation: below this it is no sign of anything. Lost states were measured from 0.02 to 0.3."""


def reuse_fault(model: Any, new_cache: Callable[[], SessionCache], ids: Sequence[int], device: Any) -> str:
    """Say why a KV cache cannot be kept and continued; empty where it can.

    Args:
        model: The network.
        new_cache: Makes an empty cache for it.
        ids: Some tokens of its vocabulary.
        device: Where inputs go.
    """
    changing = sorted(_rope_types(model.config.get_text_config(decoder=True)) & {*LENGTH_DEPENDENT})
    if changing:
        return f"its rotary embedding ({changing[0]}) changes with the length of the text"
    return "" if new_cache().plain else _split_fault(model, new_cache, ids, device)


def _rope_types(config: Any) -> set[str]:
    # transformers 4 says it as `rope_scaling`, in old folders by `type`.
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    groups = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    return {str(group[key]) for group in groups for key in ("rope_type", "type") if key in group}


def _split_fault(model: Any, new_cache: Callable[[], SessionCache], ids: Sequence[int], device: Any) -> str:
    """Several recurrent models forget their state before a part of more than one token, without an error.

    In transformers 5.23 Mamba, Jamba, Zamba and RecurrentGemma. Attention over all positions has no such state.
    """
    text = [ids[place % len(ids)] for place in range(FIRST + REST)]

    def logits(*cuts: int) -> Any:
        cache = new_cache()
        parts = [_pass(model, cache, text[a:b], device) for a, b in zip((0, *cuts), (*cuts, len(text)), strict=True)]
        return torch.cat(parts)[-REST:]

    whole = logits()
    deviation = float(whole.std())
    in_parts = _rms(logits(FIRST) - whole) / deviation
    one_by_one = _rms(logits(*range(FIRST, FIRST + REST)) - whole) / deviation
    if in_parts <= max(LEAST, NOISE * one_by_one):
        return ""
    return f"transformers computes a prompt of this architecture wrongly in parts (logits {in_parts:.0%} off)"


def _pass(model: Any, cache: SessionCache, tokens: Sequence[int], device: Any) -> Any:
    output = model(input_ids=torch.tensor([tokens], device=device), use_cache=True, **cache.arguments)
    cache.append(tokens)
    return output.logits[0].float()


def _rms(difference: Any) -> float:
    return float(difference.square().mean().sqrt())
