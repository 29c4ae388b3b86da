"""How much memory vLLM may take on each GPU, and how long a context fits into that.

vLLM takes a share of each card's whole memory, and fails if that much is not free. What is left of the share after the
weights and a trial run is its KV cache. The trial run is estimated here; vLLM measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from quantchat.catalog.fit import CUDA_CONTEXT, Setting, pass_bytes, weight_bytes
from quantchat.domain.kernel_table import TABLE
from quantchat.domain.memory import MIB, cache_bytes
from quantchat.domain.models import ModelInfo
from quantchat.hardware.gpu import GpuDevice
from quantchat.services.serving.parallel import Split, split

USUAL_SHARE = 0.9
"""vLLM's own default (`--gpu-memory-utilization`); later versions take 0.92."""
LEAST_SHARE = 0.05
SPARE = 256 * MIB
"""Of the free bytes of a card, left for whoever else is there."""
BATCH_TOKENS, BATCH_ROWS = 8192, 256
"""Tokens of the trial run, and conversations whose next token it samples: vLLM's defaults for a server."""
SAMPLING_BYTES = 8
"""Per row and entry of the vocabulary: logits in float32 and a copy (estimate)."""
GRAPHS = 800 * MIB
"""Captured CUDA graphs, which later versions count into the share (0.3 to 1 GiB in logs of vLLM 0.11)."""
UNEVEN = 1.05
"""The first and the last card hold the embeddings and the head beside their layers."""
WANTED = 32_768
"""Tokens of context for which further GPUs are taken."""
BLOCK = 16
"""Tokens of a block of vLLM's KV cache."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is served.

    Attributes:
        gpus: On this machine, in the order of their numbers; empty without one.
        share: Of each card's whole memory; None if it is not known what is free.
        context: Longest context that should fit, in tokens; None if that is not known.
    """

    split: Split = Split()
    gpus: tuple[GpuDevice, ...] = ()
    share: float | None = None
    context: int | None = None


def places(model: ModelInfo, gpus: Sequence[GpuDevice], nodes: int = 1, fixed: Split | None = None) -> list[Place]:
    """Return the ways to serve a model, on the emptiest card alone first and on all last.

    Args:
        model: The model.
        gpus: The visible ones of this machine.
        nodes: Machines, all with GPUs as this one has.
        fixed: What the user wants; then this is the only way.
    """
    emptiest = sorted(gpus, key=lambda gpu: -(gpu.free or 0))
    counts = range(1 if nodes == 1 else max(len(gpus), 1), len(gpus) + 1)
    found = [
        _place(model, emptiest[:count], parts)
        for count in counts
        if (parts := fixed or split(model, count, nodes)) is not None and parts.gpus == count * nodes
    ]
    return found or [Place(split=fixed or Split(1, nodes), gpus=tuple(gpus))]


def best(found: Sequence[Place], window: int) -> Place:
    """Take the first place with room for the context that is wanted, else the one with the most room."""
    wanted = min(window or WANTED, WANTED)
    enough = (place for place in found if place.context is None or place.context >= wanted)
    return next(enough, None) or max(found, key=lambda place: place.context or 0)


def _place(model: ModelInfo, gpus: Sequence[GpuDevice], parts: Split) -> Place:
    chosen = tuple(sorted(gpus, key=lambda gpu: gpu.index))
    share = memory_share(chosen)
    context = None if share is None else longest_context(model, chosen, parts, share)
    return Place(split=parts, gpus=chosen, share=share, context=context)


def memory_share(gpus: Sequence[GpuDevice]) -> float | None:
    """Return the share of each card that vLLM can have, in hundredths; None if a driver does not tell."""
    known = [(gpu.free, gpu.total) for gpu in gpus if gpu.free is not None and gpu.total]
    if not known or len(known) < len(gpus):
        return None
    free = min((free - SPARE) / total for free, total in known)
    return max(LEAST_SHARE, min(USUAL_SHARE, math.floor(100 * free) / 100))


def longest_context(model: ModelInfo, gpus: Sequence[GpuDevice], parts: Split, share: float) -> int:
    """Return the tokens that fit on the smallest of the cards beside the weights; 0 if not even these do."""
    budget = share * min(gpu.total or 0 for gpu in gpus)
    left = budget - _held(model, parts)
    low, high = 0, (model.context_window or 1 << 20) // BLOCK
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _cache(model, parts, middle * BLOCK) <= left else (low, middle - 1)
    whole = low == (model.context_window or 0) // BLOCK
    return (model.context_window or 0) if low and whole else low * BLOCK


def _held(model: ModelInfo, parts: Split) -> float:
    """Bytes on one card before the first token of KV cache."""
    kernel = next((row for row in TABLE if row.name == f"{model.quant.method}_marlin"), None)
    setting = Setting(device="cuda", kernel=kernel)
    weights = weight_bytes(model, setting) / parts.gpus * (UNEVEN if parts.gpus > 1 else 1)
    trial = pass_bytes(model, setting, BATCH_TOKENS, BATCH_TOKENS) / parts.tensor
    sampling = BATCH_ROWS * model.shape.vocabulary * SAMPLING_BYTES
    return weights + trial + sampling + CUDA_CONTEXT + GRAPHS


def _cache(model: ModelInfo, parts: Split, tokens: int) -> float:
    """Bytes of a conversation on one card; fewer heads for keys and values than cards are kept several times."""
    copies = max(1.0, parts.tensor / model.shape.kv_heads) if model.shape.kv_heads else 1.0
    return cache_bytes(model, tokens) / parts.gpus * copies
