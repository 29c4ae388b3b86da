"""KV buffers of a fixed length and address, and one decode step over them: what a CUDA graph can be captured of."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

PROBE_TOKEN = 0
ATTENTION_TYPES = ("full_attention", "sliding_attention")
LAYER_CLASSES = (DynamicLayer, DynamicSlidingWindowLayer)
ATTENTION_CODE = ("sdpa", "eager")


@dataclass(frozen=True)
class Refusal:
    """Why there is no fast decode path, in words for the user."""

    reason: str


@dataclass(frozen=True)
class LayerShape:
    """The KV cache of one layer: heads, sizes of a key and a value, and what they are stored as."""

    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    sliding: bool

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's key and value."""
        return self.heads * (self.key_size + self.value_size) * int(self.dtype.itemsize)


@dataclass(frozen=True)
class Layout:
    """What the buffers of one model look like.

    Attributes:
        layers: One shape per layer.
        vocabulary: Logits per token.
        logits_dtype: As the model's forward pass gives them.
    """

    layers: tuple[LayerShape, ...]
    vocabulary: int
    logits_dtype: torch.dtype
    device: torch.device

    def nbytes(self, length: int) -> int:
        """Bytes of the buffers for so many tokens."""
        logits = self.vocabulary * int(self.logits_dtype.itemsize)
        return length * sum(layer.token_bytes for layer in self.layers) + logits


def refusal(model: Any) -> Refusal | None:
    """Say what the model's own description tells against fixed buffers, or None."""
    config = model.config.get_text_config(decoder=True)
    if len({parameter.device for parameter in model.parameters()}) != 1:
        return Refusal("the model's layers are on more than one device")
    if any("dynamic" in kind for kind in _rope_types(config)):
        return Refusal("its rotary embedding (dynamic) changes with the length of the text")
    if config._attn_implementation not in ATTENTION_CODE:
        return Refusal(f"its attention ({config._attn_implementation}) is none that masks fixed buffers")
    odd = sorted(set(getattr(config, "layer_types", None) or ()) - set(ATTENTION_TYPES))
    return Refusal(f"it has {', '.join(odd)} layers, whose state is no list of positions") if odd else None


def _rope_types(config: Any) -> set[str]:
    parameters = getattr(config, "rope_parameters", None) or {}
    groups = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    return {str(group["rope_type"]) for group in groups if "rope_type" in group}


def layout(model: Any) -> Layout | Refusal:
    """Run one token through the model and read what its cache stores."""
    device = next(model.parameters()).device
    cache = DynamicCache(config=model.config)
    token = torch.tensor([[PROBE_TOKEN]], device=device)
    logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
    odd = sorted({type(layer).__name__ for layer in cache.layers if type(layer) not in LAYER_CLASSES})
    if odd:
        return Refusal(f"its cache is no list of positions ({', '.join(odd)})")
    if not all(layer.is_initialized for layer in cache.layers):
        return Refusal("its layers share their caches")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return Refusal("its forward pass takes no position ids")
    shapes = tuple(_shape(layer) for layer in cache.layers)
    return Layout(layers=shapes, vocabulary=logits.shape[-1], logits_dtype=logits.dtype, device=device)


def _shape(layer: DynamicLayer) -> LayerShape:
    return LayerShape(
        heads=layer.keys.shape[1],
        key_size=layer.keys.shape[-1],
        value_size=layer.values.shape[-1],
        dtype=layer.keys.dtype,
        sliding=isinstance(layer, DynamicSlidingWindowLayer),
    )


class FixedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffer; a pass over one token writes at `position` and sees the whole buffer.

    Sliding layers keep every position as well: the model's mask hides what has left their window, so that one captured
    step serves before and after the window is full.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, shape: LayerShape, length: int, position: torch.Tensor) -> None:
        super().__init__()
        # Zeros, as masked positions still enter a product with zero, and garbage may be NaN.
        room = (1, shape.heads, length)
        self.keys = torch.zeros((*room, shape.key_size), dtype=shape.dtype, device=position.device)
        self.values = torch.zeros((*room, shape.value_size), dtype=shape.dtype, device=position.device)
        self.sliding = shape.sliding
        self.is_initialized = True
        self._position, self._seen = position, position.view(())

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Nothing is left to do: the shapes are known from the start."""

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Write one token."""
        self.keys.index_copy_(2, self._position, key_states)
        self.values.index_copy_(2, self._position, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of the buffer, and where it begins."""
        return self.keys.shape[-2], 0

    def get_seq_length(self) -> Any:
        """Tokens before `position`, as a tensor: a number would be frozen into the graph."""
        return self._seen

    def get_max_length(self) -> int:
        """Length of the buffer."""
        return int(self.keys.shape[-2])


class Bucket:
    """The buffers of one length, and which session's tokens are in them.

    Attributes:
        logits: Logits after the last step, of shape [vocabulary]; the next step writes over them.
        ids: The tokens whose keys and values the full-attention layers hold.
    """

    def __init__(self, layout: Layout, length: int) -> None:
        self.length = length
        self.nbytes = layout.nbytes(length)
        self.token = torch.zeros((1, 1), dtype=torch.long, device=layout.device)
        self.position = torch.zeros(1, dtype=torch.long, device=layout.device)
        self.logits = torch.zeros(layout.vocabulary, dtype=layout.logits_dtype, device=layout.device)
        self.layers = [FixedLayer(shape, length, self.position) for shape in layout.layers]
        self.cache = Cache(layers=self.layers)
        self.ids: list[int] = []
        self._tenant: Any = None

    def load(self, cache: Any, ids: Sequence[int], tenant: SessionCache | None = None) -> None:
        """Take over what a transformers cache holds of `ids`; of the same tenant only what has changed."""
        same = tenant is not None and self._tenant is not None and self._tenant() is tenant
        start = common_prefix(self.ids, ids) if same else 0
        for own, other in zip(self.layers, cache.layers, strict=True):
            held = other.keys.shape[-2]
            # A sliding layer of the session may have left out what it had on the last visit.
            first = max(len(ids) - held, 0 if own.sliding else start)
            own.keys[:, :, first : len(ids)] = other.keys[:, :, held - (len(ids) - first) :]
            own.values[:, :, first : len(ids)] = other.values[:, :, held - (len(ids) - first) :]
        self.ids = list(ids)
        self._tenant = None if tenant is None else weakref.ref(tenant)

    def store(self, cache: Any, start: int) -> None:
        """Append what was computed since `start` to a transformers cache."""
        for own, other in zip(self.layers, cache.layers, strict=True):
            other.update(own.keys[:, :, start : len(self.ids)], own.values[:, :, start : len(self.ids)])

    def take_over(self, smaller: Bucket) -> None:
        """Copy everything from a smaller bucket."""
        for own, other in zip(self.layers, smaller.layers, strict=True):
            own.keys[:, :, : smaller.length] = other.keys
            own.values[:, :, : smaller.length] = other.values
        self.ids, self._tenant = list(smaller.ids), smaller._tenant

    def forget(self) -> None:
        """Belong to no session: what is in the buffers is not to be used again."""
        self.ids, self._tenant = [], None


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Count the leading tokens that two sequences share."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter
    return next(index for index, (one, other) in enumerate(zip(left, right, strict=False)) if one != other)


class PlainStep:
    """The decode step as an ordinary forward pass: what is captured, and what the tests run on the CPU."""

    def __init__(self, model: Any, bucket: Bucket) -> None:
        self._model, self._bucket = model, bucket
        self._positions = bucket.position.view(1, 1)
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if keeps else {}

    def run(self) -> None:
        """Compute the bucket's token at its position."""
        output = self._model(
            input_ids=self._bucket.token,
            position_ids=self._positions,
            past_key_values=self._bucket.cache,
            use_cache=True,
            **self._options,
        )
        self._bucket.logits.copy_(output.logits[0, -1])

    def release(self) -> None:
        """Nothing is held."""
