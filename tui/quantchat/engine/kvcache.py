"""The KV cache of one session and the token ids that it stands for, cut to what the next prompt shares with it.

The right kind is transformers' own choice for the model; what can be done with it is told by the classes of its layers:

- full attention (`GrowingLayer` here) can drop any suffix;
- a sliding window can while it is not full;
- a recurrent state cannot at all: it goes back to a snapshot;
- layers that are not known here only take more tokens, or start anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from transformers import DynamicCache

from quantchat.engine import kvstate
from quantchat.engine.kvlayers import TOKENS, GrowingTokens, TokenBuffer
from quantchat.engine.kvlayers import GrowingLayer as GrowingLayer

SNAPSHOTS = 3
"""Kept per session: the starts of the last answers. Regenerating needs the last, editing a question the one before."""
WASTE = 2
"""Buffers this many times larger than what they hold give the rest back when the session waits."""


class Snapshot:
    """What of a cache cannot be cropped, as it was at some length."""

    def __init__(self, length: int, states: list[dict[str, Any]]) -> None:
        self.length, self.states = length, states


class SessionCache:
    """One session's cache.

    After an exception inside a forward pass some layers are ahead of others. `reuse` measures them all and trusts
    nothing that it cannot measure unless the last pass was noted, so that such a cache gives no wrong text later.

    Attributes:
        ids: The tokens that the cache stands for.
        place: Where it is; it computes on the device only.
    """

    def __init__(self, model: Any) -> None:
        self._config = model.config
        self._argument = _argument(model)
        self.place: Literal["device", "host"] = "device"
        self._start()

    def _start(self) -> None:
        self.ids: list[int] = []
        self._snapshots: list[Snapshot] = []
        self._cache = DynamicCache(config=self._config)
        self._cache.layers = [kvstate.growing(layer) for layer in self._cache.layers]
        self._homes: list[torch.device | None] = []
        self._noted = True

    @property
    def cache(self) -> DynamicCache:
        """What a forward pass writes to. Ask for it anew for every pass, and `append` what the pass computed."""
        self._noted = False
        return self._cache

    @property
    def arguments(self) -> dict[str, DynamicCache]:
        """`cache` under the name that the model's forward gives it."""
        return {self._argument: self.cache}

    @property
    def plain(self) -> bool:
        """Whether all layers are full attention: any suffix can be dropped at any length."""
        return all(type(layer) is GrowingLayer for layer in self._cache.layers)

    @property
    def croppable(self) -> bool:
        """Whether a suffix can be dropped now."""
        return all(type(layer) in kvstate.CROPPABLE or kvstate.is_open_window(layer) for layer in self._cache.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of storage that it holds, what is allocated ahead and the snapshots included."""
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in self._tensors()}
        return sum(storage.nbytes() for storage in storages.values())

    def reuse(self, prompt: Sequence[int]) -> int:
        """Cut the cache to what the prompt begins with; return how many tokens that is.

        At least one token of the prompt is left to compute, as its logits are what the next token comes from.
        """
        self.to_device()
        self._cut(min(_common(self.ids, prompt), len(prompt) - 1))
        for layer in self._cache.layers:
            if isinstance(layer, GrowingTokens):
                layer.wanted = len(prompt)
        return len(self.ids)

    def append(self, ids: Sequence[int]) -> None:
        """Note that a forward pass has just computed these tokens, all of them."""
        self.ids.extend(ids)
        self._noted = True

    def recover(self) -> None:
        """Cut the cache, after a pass that failed, to as much of `ids` as all layers are known to stand for."""
        self._cut(len(self.ids))

    def rollback(self, count: int) -> None:
        """Drop the last tokens.

        Raises:
            ValueError: if the cache is not croppable.
        """
        length = len(self.ids) - count
        if not self._can_crop(length):
            raise ValueError(f"this cache cannot drop its last {count} tokens")
        self._crop(length)

    def snapshot(self) -> None:
        """Remember this length where the cache cannot be cropped back to it; the last few are kept."""
        if self.plain or not self.ids or not self._noted:
            return
        if self._snapshots and self._snapshots[-1].length == len(self.ids):
            return
        states = [state for layer in self._cache.layers if (state := kvstate.fixed_state(layer)) is not None]
        if len(states) == len(self._cache.layers):
            self._snapshots = [*self._snapshots, Snapshot(len(self.ids), states)][-SNAPSHOTS:]

    def _cut(self, length: int) -> None:
        if length > 0 and self._can_crop(length):
            self._crop(length)
            return
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.length <= length]
        if length <= 0 or not self._snapshots:
            self._start()
            return
        last = self._snapshots[-1]
        for layer, state in zip(self._cache.layers, last.states, strict=True):
            kvstate.restore(layer, state)
        self._crop(last.length)

    def _can_crop(self, length: int) -> bool:
        trusted = self._noted and length == len(self.ids)
        return all(kvstate.can_crop(layer, length, trusted=trusted) for layer in self._cache.layers)

    def _crop(self, length: int) -> None:
        for layer in self._cache.layers:
            kvstate.crop(layer, length)
        del self.ids[length:]
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot.length <= length]
        self._noted = True

    def compact(self) -> None:
        """Give back storage that is mostly unused; for a session that waits."""
        for layer in self._cache.layers:
            kvstate.change(layer, _compacted, _compacted_buffer)

    def to_host(self) -> None:
        """Move everything to host memory, pinned where there is a GPU."""
        if self.place == "host":
            return
        self._homes = [kvstate.device_of(layer) for layer in self._cache.layers]
        self._move([_to_host] * len(self._homes))
        for home in {home for home in self._homes if home is not None and home.type == "cuda"}:
            torch.cuda.synchronize(home)
        self.place = "host"

    def to_device(self) -> None:
        """Move everything back to where it was computed."""
        if self.place == "device":
            return
        self._move([partial(_to, device) for device in self._homes])
        self.place = "device"

    def _move(self, moves: Sequence[kvstate.Change]) -> None:
        for index, (layer, move) in enumerate(zip(self._cache.layers, moves, strict=True)):
            kvstate.change(layer, move, partial(_of_states, move))
            for snapshot in self._snapshots:
                snapshot.states[index] = kvstate.each(snapshot.states[index], move)

    def _tensors(self) -> Iterator[torch.Tensor]:
        for layer in self._cache.layers:
            yield from kvstate.tensors_of(vars(layer))
        for snapshot in self._snapshots:
            yield from kvstate.tensors_of(snapshot.states)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _argument(model: Any) -> str:
    """Purely recurrent models have their own name for the cache."""
    names = inspect.signature(model.forward).parameters
    return "cache_params" if "cache_params" in names and "past_key_values" not in names else "past_key_values"


def _compacted(tensor: torch.Tensor) -> torch.Tensor:
    held = tensor.numel() * tensor.element_size()
    return tensor.clone() if tensor.untyped_storage().nbytes() > WASTE * held else tensor


def _compacted_buffer(buffer: TokenBuffer) -> torch.Tensor:
    wasteful = buffer.storage.shape[TOKENS] > WASTE * buffer.length
    return buffer.states.clone() if wasteful else buffer.storage


def _of_states(move: kvstate.Change, buffer: TokenBuffer) -> torch.Tensor:
    return move(buffer.states)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    copy = _pinned_like(tensor) if tensor.is_cuda else torch.empty_like(tensor, memory_format=torch.contiguous_format)
    return copy.copy_(tensor, non_blocking=tensor.is_cuda)


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    try:
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError:
        # Systems limit how much may be pinned; ordinary memory is slower to copy, not wrong.
        return torch.empty(tensor.shape, dtype=tensor.dtype)


def _to(device: torch.device | None, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if device is None else tensor.to(device, non_blocking=True)
