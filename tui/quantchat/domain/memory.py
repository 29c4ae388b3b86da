"""Byte arithmetic: what a conversation needs, how sizes are written."""

from __future__ import annotations

from typing import Literal

from quantchat.domain.models import ModelInfo

GIB = 1024**3
MIB = 1024**2

Fit = Literal["fits", "tight", "too big", "broken"]


def kv_bytes_per_token(model: ModelInfo, element_bytes: int = 2) -> int:
    """Bytes that one more token adds to the KV cache of a long conversation; 0 if the shape is unknown.

    With full attention that is 2 (keys, values) × layers × KV heads × head size × element size (23,040 B measured for
    SmolLM2-135M in bf16). Windows that are full and recurrent states add nothing.
    """
    spec, shape = model.attention, model.shape
    if spec.full or spec.sliding or spec.state_values:
        return spec.full * spec.token_values * element_bytes
    return 2 * shape.layers * shape.kv_heads * shape.head_size * element_bytes


def cache_bytes(model: ModelInfo, tokens: int, element_bytes: float = 2) -> int:
    """Bytes of the KV cache of a conversation.

    Layers with a window keep its length less one (`DynamicSlidingWindowLayer` of transformers); recurrent states have
    one size for any length.
    """
    spec = model.attention
    if not (spec.full or spec.sliding or spec.state_values):
        return int(tokens * kv_bytes_per_token(model, 1) * element_bytes)
    windowed = spec.sliding * spec.sliding_values * min(tokens, max(spec.window - 1, 0))
    values = spec.full * spec.token_values * tokens + windowed + spec.state_values
    return int(values * element_bytes) + spec.state_bytes


def format_bytes(count: int) -> str:
    """Write a size as people read it: `512 B`, `93 MiB`, `4.2 GiB`."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.1f} {unit}" if unit in ("GiB", "TiB") or size < 10 else f"{size:.0f} {unit}"
