"""What bounds decoding on the CPU: how fast its memory moves bytes, and how many a token reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from quantchat.domain.models import ModelInfo
from quantchat.engine.pace import cores
from quantchat.errors import Cancelled, JobError

COPY_BYTES = 256 * 1024**2
"""Several times what the caches hold."""
ROUNDS = 8


def figures(
    model: ModelInfo, device: str, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
) -> dict[str, float]:
    """Return `copy_bytes_per_second` and `token_bytes`, as `engine/traffic.py` does.

    Raises:
        JobError: on a GPU, whose memory only its own library moves.
        Cancelled: between two copies.
    """
    if device != "cpu":
        raise JobError(
            "The memory of the GPU cannot be measured with a GGUF file",
            "llama.cpp has no call for it.",
            "Measure it with a GPTQ or AWQ model.",
            code="backend",
        )
    source = np.zeros(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    best = 0.0
    with ThreadPoolExecutor(cores()) as pool:
        for done in range(ROUNDS):
            if cancelled():
                raise Cancelled("Stopped")
            progress(done, ROUNDS)
            begun = time.perf_counter()
            # numpy lets go of the interpreter while it copies.
            list(pool.map(np.copyto, np.array_split(target, cores()), np.array_split(source, cores())))
            best = max(best, 2 * COPY_BYTES / (time.perf_counter() - begun))
    return {"copy_bytes_per_second": best, "token_bytes": float(token_bytes(model))}


def token_bytes(model: ModelInfo) -> int:
    """Bytes of weights that a token reads: of an embedding table that is not the output head too, one row."""
    table = 0 if model.tied else model.weights.inputs.other
    return model.weight_bytes - table + (table // model.shape.vocabulary if model.shape.vocabulary else 0)
