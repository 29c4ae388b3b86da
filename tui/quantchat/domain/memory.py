"""Byte arithmetic: what a model needs, how sizes are written."""

from __future__ import annotations

from typing import Literal

from quantchat.domain.models import ModelInfo

GIB = 1024**3
MIB = 1024**2

Fit = Literal["fits", "tight", "too big", "broken"]

REPACKING_SHARE = 0.08
"""Kernels repack weights after the first forward: 4 to 8 % more, measured on the CPU kernels of GPTQModel 7.7."""
RUNTIME_BYTES = {"cpu": 800 * MIB, "cuda": 600 * MIB}
"""Held by the imports alone on the CPU (796 MiB measured); CUDA context and workspaces on a GPU (estimate)."""
PLANNED_CONTEXT = 4096
TIGHT_SHARE = 0.9


def kv_bytes_per_token(model: ModelInfo, element_bytes: int = 2) -> int:
    """Bytes of KV cache per token: 2 (keys, values) × layers × KV heads × head size × element size.

    Exact for full-attention models (23,040 B measured for SmolLM2-135M in bf16). 0 if the shape is unknown.
    """
    shape = model.shape
    return 2 * shape.layers * shape.kv_heads * shape.head_size * element_bytes


def predicted_bytes(model: ModelInfo, device: Literal["cpu", "cuda"]) -> int:
    """Bytes needed to load a model and chat with a window of up to 4,096 tokens.

    Weights from the safetensors headers, the kernels' repacking, the KV cache, and what the runtime itself takes.
    """
    window = min(model.context_window or PLANNED_CONTEXT, PLANNED_CONTEXT)
    weights = model.weight_bytes * (1 + REPACKING_SHARE)
    return int(weights) + window * kv_bytes_per_token(model) + RUNTIME_BYTES[device]


def judge_fit(model: ModelInfo, device: Literal["cpu", "cuda"], free_bytes: int) -> Fit:
    """Say whether a model fits into free memory now; `tight` above 90 % of it."""
    if not model.loadable:
        return "broken"
    need = predicted_bytes(model, device)
    if need > free_bytes:
        return "too big"
    return "tight" if need > TIGHT_SHARE * free_bytes else "fits"


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
