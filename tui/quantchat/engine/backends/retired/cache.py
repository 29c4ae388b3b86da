"""The KV cache of one session in the form that transformers 4 has, and the token ids that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from transformers import DynamicCache

WASTE = 2
"""Storages this many times larger than what they hold give the rest back when the session waits."""


class RetiredCache:
    """What turns and `WarmSessions` ask of a cache; all layers keep every token, so that any suffix can be dropped.

    Attributes:
        ids: The tokens that the cache stands for. After a pass that failed some layers hold more; `reuse` and
            `recover` cut them.
    """

    place: Literal["device"] = "device"
    plain = croppable = True

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cache = DynamicCache()

    @property
    def arguments(self) -> dict[str, Any]:
        """`cache` under the name that a model's forward gives it."""
        return {"past_key_values": self.cache}

    @property
    def nbytes(self) -> int:
        """Bytes of storage that it holds."""
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in self._tensors()}
        return sum(storage.nbytes() for storage in storages.values())

    def reuse(self, prompt: Sequence[int]) -> int:
        """Cut the cache to what the prompt begins with, at least its last token left out; return how many that is."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.ids, prompt, strict=False)))
        self._cut(min(same, len(prompt) - 1))
        return len(self.ids)

    def append(self, ids: Sequence[int]) -> None:
        """Note that a forward pass has just computed these tokens, all of them."""
        self.ids.extend(ids)

    def recover(self) -> None:
        """Cut the cache, after a pass that failed, to what all layers hold."""
        self._cut(len(self.ids))

    def rollback(self, count: int) -> None:
        """Drop the last tokens."""
        self._cut(len(self.ids) - count)

    def snapshot(self) -> None:
        """Without effect: what can be cropped needs no memory of its lengths."""

    def compact(self) -> None:
        """Give back storage that is mostly unused; for a session that waits."""
        held = sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())
        if self.nbytes > WASTE * held:
            copies = tuple((keys.clone(), values.clone()) for keys, values in self.cache.to_legacy_cache())
            self.cache = DynamicCache.from_legacy_cache(copies)

    def _cut(self, length: int) -> None:
        del self.ids[length:]
        if length > 0:
            self.cache.crop(length)
        else:
            self.cache = DynamicCache()

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for pair in self.cache.to_legacy_cache() for tensor in pair if tensor is not None]
