"""What can be done with one layer of a KV cache, told by its class: cropped, copied, moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import cache_utils as kinds

from quantchat.engine.kvlayers import TOKENS, GrowingHybridLayer, GrowingLayer, GrowingTokens, TokenBuffer

Change = Callable[[torch.Tensor], torch.Tensor]

# Newer than the oldest transformers that works.
_DUMMY = getattr(kinds, "DummyLayer", GrowingLayer)
CROPPABLE = (GrowingLayer, _DUMMY)
"""They can drop any suffix at any length."""
_SLIDING = tuple(
    getattr(kinds, name)
    for name in ("DynamicSlidingWindowLayer", "LinearAttentionAndSlidingWindowAttentionLayer")
    if hasattr(kinds, name)
)
RESTORABLE = (GrowingHybridLayer, kinds.LinearAttentionLayer, *_SLIDING)
"""All that they hold is tensors and numbers among their attributes, so that a copy of these is a snapshot."""


def growing(layer: Any) -> Any:
    """Return our own layer in place of transformers' one that copies itself for every token."""
    if type(layer) is kinds.DynamicLayer:
        return GrowingLayer()
    if type(layer) is kinds.LinearAttentionAndFullAttentionLayer:
        return GrowingHybridLayer(number_of_states=layer.number_of_states)
    return layer


def is_open_window(layer: Any) -> bool:
    """Whether it is a sliding window that still holds every token."""
    return type(layer) is kinds.DynamicSlidingWindowLayer and layer.cumulative_length < layer.sliding_window


def can_crop(layer: Any, length: int, *, trusted: bool) -> bool:
    """Whether the layer can be brought to a length that is not 0.

    Args:
        layer: Of a cache that has seen a whole pass.
        length: Tokens to keep.
        trusted: The last pass is known to have come to its end, and to have left the cache at this length.
    """
    if isinstance(layer, GrowingTokens):
        whole = not layer.is_initialized or layer.length >= length
        return whole and (trusted or isinstance(layer, GrowingLayer))
    if type(layer) is kinds.DynamicSlidingWindowLayer:
        return _can_crop_window(layer, length)
    return trusted or type(layer) is _DUMMY


def _can_crop_window(layer: Any, length: int) -> bool:
    if not layer.is_initialized:
        return True
    seen = layer.cumulative_length
    held = min(seen, layer.sliding_window - 1)
    # A pass that ran out of memory may have counted tokens that it did not keep.
    return layer.keys.shape[TOKENS] == held and (seen == length or (seen > length and is_open_window(layer)))


def crop(layer: Any, length: int) -> None:
    """Bring a layer to a length that `can_crop` agreed to."""
    if isinstance(layer, GrowingTokens):
        layer.keep_first(length)
    elif is_open_window(layer) and layer.is_initialized and layer.cumulative_length > length:
        layer.crop(length - layer.cumulative_length)


def fixed_state(layer: Any) -> dict[str, Any] | None:
    """Copy what `crop` cannot bring back; None if that cannot be known."""
    if type(layer) in CROPPABLE:
        return {}
    if type(layer) not in RESTORABLE:
        return None
    return {name: each(value, torch.clone) for name, value in vars(layer).items() if not isinstance(value, TokenBuffer)}


def restore(layer: Any, state: dict[str, Any]) -> None:
    """Put a copy of such a state back."""
    vars(layer).update({name: each(value, torch.clone) for name, value in state.items()})


def change(layer: Any, tensors: Change, buffers: Callable[[TokenBuffer], torch.Tensor]) -> None:
    """Replace all that a layer holds.

    Args:
        layer: The layer.
        tensors: Gives the tensor that replaces another.
        buffers: Gives the tensor that replaces a buffer.
    """
    for name, value in list(vars(layer).items()):
        if isinstance(value, TokenBuffer):
            setattr(layer, name, TokenBuffer(buffers(value), value.length))
        else:
            vars(layer)[name] = each(value, tensors)


def each(value: Any, function: Change) -> Any:
    """Apply a function to a tensor, or to the tensors of a dictionary or a sequence."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: each(item, function) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(each(item, function) for item in value)
    return value


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of an attribute's value."""
    if isinstance(value, TokenBuffer):
        yield value.storage
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(item)


def device_of(layer: Any) -> torch.device | None:
    """Where a layer computes; None if it holds nothing."""
    held = [tensor for value in vars(layer).values() for tensor in tensors_of(value) if tensor.dim()]
    return held[0].device if held else None
