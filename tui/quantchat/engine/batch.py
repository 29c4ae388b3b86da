"""Several answers in one forward pass: their caches joined, padded on the left to the longest of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from quantchat.engine.forward import Forward
from quantchat.engine.kvcache import GrowingLayer
from quantchat.engine.turn import RunningTurn

logger = logging.getLogger(__name__)


class Batch:
    """Turns that decode together until one of them joins or leaves.

    The weights are read once per pass for all of them, which is most of what decoding costs. Joining copies every
    cache once, parting copies what was computed together. Kernels round differently in a batch, so that greedy text
    can differ from that of a turn alone where two tokens are nearly equal.
    """

    def __init__(self, forward: Forward, turns: Sequence[RunningTurn]) -> None:
        self.turns = list(turns)
        self._forward = forward
        self._lengths = [len(turn.cache.ids) for turn in turns]
        self._width = max(self._lengths)
        self._cache = self._joined()
        self._steps = 0
        self._positions = torch.tensor([[length] for length in self._lengths], device=forward.device)
        self._pads = torch.tensor([[self._width - length] for length in self._lengths], device=forward.device)

    def _joined(self) -> DynamicCache:
        cache = DynamicCache()
        cache.layers = [
            _joined_layer(layers, self._width)
            for layers in zip(*(t.cache.cache.layers for t in self.turns), strict=True)
        ]
        return cache

    def logits(self) -> Any:
        """Compute the last token of every turn; return logits of shape [turns, vocabulary].

        Raises:
            Exception: whatever the forward pass raises; the turns' own caches are then as they were.
        """
        tokens = torch.tensor([[turn.ids[-1]] for turn in self.turns], device=self._forward.device)
        slots = torch.arange(self._width + self._steps + 1, device=self._forward.device)
        logits = self._forward.together(self._cache, tokens, slots >= self._pads, self._positions)
        self._positions += 1
        self._steps += 1
        return logits

    def part(self) -> None:
        """Give every turn what was computed of it; one for whose part there is no memory computes it again."""
        for row, turn in enumerate(self.turns):
            try:
                self._give(turn, row)
            except Exception:
                logger.exception("a turn could not take what was computed of it")
                turn.recover()

    def _give(self, turn: RunningTurn, row: int) -> None:
        # A pass that failed may have left some layers with a token more.
        mine, computed = slice(row, row + 1), slice(self._width, self._width + self._steps)
        for own, shared in zip(turn.cache.cache.layers, self._cache.layers, strict=True):
            own.update(shared.keys[mine, :, computed], shared.values[mine, :, computed])
        begin = self._lengths[row]
        turn.cache.append(turn.ids[begin : begin + self._steps])


def _joined_layer(layers: Sequence[Any], width: int) -> GrowingLayer:
    """One layer of several caches as one of shape [turns, heads, width, head size]."""
    joined = GrowingLayer()
    joined.update(_padded([layer.keys for layer in layers], width), _padded([layer.values for layer in layers], width))
    return joined


def _padded(parts: Sequence[Any], width: int) -> Any:
    _, heads, _, size = parts[0].shape
    whole = parts[0].new_zeros((len(parts), heads, width, size))
    for row, part in enumerate(parts):
        whole[row, :, width - part.shape[2] :] = part[0]
    return whole
