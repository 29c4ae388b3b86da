"""Layers of a KV cache that grow in place: transformers' own copy everything that they hold for every new token."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer, LinearAttentionLayer

TOKENS = 2
"""The dimension of `[batch, heads, tokens, head size]` that grows."""
STEP = 256
"""Least room, in tokens, that a growth adds; a quarter of the length where that is more, so that copies amortise."""


class TokenBuffer:
    """A tensor of shape [batch, heads, tokens, size] inside a larger one, with room for more tokens.

    Attributes:
        length: Tokens that it holds.
    """

    __slots__ = ("_storage", "length")

    def __init__(self, storage: torch.Tensor, length: int | None = None) -> None:
        self._storage = storage
        self.length = storage.shape[TOKENS] if length is None else length

    @property
    def states(self) -> torch.Tensor:
        """What it holds, as a view."""
        return self._storage.narrow(TOKENS, 0, self.length)

    @property
    def storage(self) -> torch.Tensor:
        """What it holds and the room behind it."""
        return self._storage

    def append(self, states: torch.Tensor, wanted: int) -> torch.Tensor:
        """Write new tokens behind the others and return all; `wanted` tokens will come to be held in the end."""
        begin, added = self.length, states.shape[TOKENS]
        end = begin + added
        if end > self._storage.shape[TOKENS] or self._is_read_only():
            self.reallocate(wanted if end <= wanted else end + max(STEP, end // 4))
        self._storage.narrow(TOKENS, begin, added).copy_(states)
        self.length = end
        return self.states

    def reallocate(self, capacity: int) -> None:
        """Move to a tensor with room for so many tokens."""
        shape = list(self._storage.shape)
        shape[TOKENS] = capacity
        grown = self._storage.new_empty(shape)
        grown.narrow(TOKENS, 0, self.length).copy_(self.states)
        self._storage = grown

    def _is_read_only(self) -> bool:
        # Tensors made under `inference_mode` cannot be written outside it.
        return self._storage.is_inference() and not torch.is_inference_mode_enabled()


class GrowingTokens:
    """What `keys` and `values` of a layer are: views of two buffers. Assigning to them replaces the buffers.

    Attributes:
        wanted: Tokens that the layer is going to hold, as far as is known; saves copies while a prompt is computed.
    """

    wanted = 0
    _keys: TokenBuffer | None = None
    _values: TokenBuffer | None = None
    is_initialized: bool

    @property
    def keys(self) -> torch.Tensor | None:
        """Of shape [batch, heads, tokens, head size]."""
        return None if self._keys is None else self._keys.states

    @keys.setter
    def keys(self, states: torch.Tensor | None) -> None:
        self._keys = None if states is None else TokenBuffer(states)

    @property
    def values(self) -> torch.Tensor | None:
        """Of shape [batch, heads, tokens, head size]."""
        return None if self._values is None else self._values.states

    @values.setter
    def values(self, states: torch.Tensor | None) -> None:
        self._values = None if states is None else TokenBuffer(states)

    @property
    def buffers(self) -> tuple[TokenBuffer, ...]:
        """Both buffers, none before the first tokens."""
        return (self._keys, self._values) if self._keys is not None and self._values is not None else ()

    @property
    def length(self) -> int:
        """Tokens that are held."""
        return 0 if self._keys is None else self._keys.length

    def get_seq_length(self) -> int:
        """Return the number of tokens."""
        return self.length

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Add tokens; return views of all keys and values."""
        if not self.is_initialized:
            self._begin(key_states, value_states)
        assert self._keys is not None
        assert self._values is not None
        return self._keys.append(key_states, self.wanted), self._values.append(value_states, self.wanted)

    def _begin(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states.narrow(TOKENS, 0, 0), value_states.narrow(TOKENS, 0, 0)
        self.is_initialized = True

    def keep_first(self, tokens: int) -> None:
        """Drop all tokens but the first; a change of length, no storage moves."""
        for buffer in self.buffers:
            buffer.length = min(tokens, buffer.length)


class GrowingLayer(GrowingTokens, DynamicLayer):  # type: ignore[misc]
    """Full attention."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin with no tokens."""
        self._begin(key_states, value_states)

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last tokens; their number is given as a negative one, as transformers wants it.

        Raises:
            ValueError: if it is positive.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes the negative number of tokens to remove, not {tokens_to_remove}")
        self.keep_first(max(self.length + tokens_to_remove, 0))


class GrowingHybridLayer(GrowingTokens, LinearAttentionAndFullAttentionLayer):  # type: ignore[misc]
    """Full attention beside a recurrent state, which `keep_first` leaves as it is."""

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Begin with no tokens, or with the recurrent state that the keywords name."""
        if args:
            self._begin(*args)
        else:
            LinearAttentionLayer.lazy_initialization(self, **kwargs)
