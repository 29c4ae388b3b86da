"""How llama.cpp is laid out on a machine: cells of its KV cache, layers on a GPU. Engine and prediction share it."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.domain.memory import GIB, MIB, kv_bytes_per_token
from quantchat.domain.models import ModelInfo

CHUNK, GPU_CHUNK = 256, 512
"""Prompt tokens of one pass."""
SEQUENCES = 8
"""Sessions whose keys and values are in the cells at a time."""
CELL_STEP = 256
"""llama.cpp rounds the cells up to this many."""
SHARED_CELLS = 8192
"""Cells for several sessions side by side, where the window is smaller."""
UNKNOWN_WINDOW = PLANNED_CELLS = 4096
ELEMENT_BYTES = 2
LEAST_BUDGET, WEIGHT_SHARE = 2 * GIB, 2
"""Cells are taken all at once, so that a long window must not eat the memory of a small model's machine: by default
this much, or half of what the weights take."""
FREE_SHARE = 0.5
"""Of what is free beside the weights."""
GPU_MARGIN, GPU_SHARE = 768 * MIB, 0.95
"""For the driver's context and the intermediate results (estimate); of the rest, what llama.cpp may fill."""


def wanted_cells(window: int) -> int:
    """Return the cells that a model with this window is best served with."""
    window = window or UNKNOWN_WINDOW
    return _rounded(max(window, min(2 * window, SHARED_CELLS)))


def token_bytes(model: ModelInfo) -> int:
    """Return the bytes of a cell: keys and values of 16 bits in all layers, those with a sliding window too."""
    spec = model.attention
    known = spec.full * spec.token_values + spec.sliding * spec.sliding_values
    return known * ELEMENT_BYTES or kv_bytes_per_token(model, ELEMENT_BYTES)


def planned_cells(model: ModelInfo, free: int | None = None, budget: int | None = None) -> int:
    """Return how many cells a load takes.

    Args:
        free: Bytes of the device with the weights still to come; None where that is not known.
        budget: Bytes of cells, by a setting; None takes a share of what is free, though enough for a conversation.
    """
    window, each = model.context_window or 0, token_bytes(model)
    wanted = wanted_cells(window)
    if not each:
        return wanted
    if budget is not None:
        return max(CELL_STEP, min(wanted, budget // each // CELL_STEP * CELL_STEP))
    ample = max(LEAST_BUDGET, model.weight_bytes // WEIGHT_SHARE)
    if free is not None:
        ample = min(ample, int(FREE_SHARE * max(free - model.weight_bytes, 0)))
    return min(wanted, max(PLANNED_CELLS, ample // each // CELL_STEP * CELL_STEP))


def gpu_layers(layers: Sequence[int], outputs: int, cell_bytes: int, free: int) -> int:
    """Return how many layers a GPU holds, counted as llama.cpp does: from the end, the output head first.

    Args:
        layers: Bytes of the weights of each layer.
        outputs: Bytes of the head.
        cell_bytes: Bytes of all cells of one layer.
        free: Bytes of the GPU.
    """
    room = int((free - GPU_MARGIN) * GPU_SHARE)
    needs = [outputs, *(size + cell_bytes for size in reversed(layers))]
    count = 0
    for need in needs:
        room -= need
        if room < 0:
            break
        count += 1
    return count


def _rounded(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP
