"""How many bytes of weights a token reads, and how fast this device's memory moves bytes at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from quantchat.engine.pace import cores
from quantchat.errors import Cancelled, JobError

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel

COPY_BYTES = {"cpu": 256 * 1024**2, "cuda": 1024**3}
"""Several times what the caches hold."""
ROUNDS = 8
EXPERTS = (".experts.", ".block_sparse_moe.experts")
CHOSEN = ("num_experts_per_tok", "moe_topk", "top_k_experts")
ALL = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def figures(
    loaded: LoadedModel | None, progress: Callable[[str, int, int], None], cancelled: Callable[[], bool]
) -> dict[str, float]:
    """Return `copy_bytes_per_second` of the model's device and `token_bytes`, the weights that one token reads.

    Raises:
        JobError: without a model.
        Cancelled: between two copies.
    """
    if loaded is None:
        raise JobError("No model is loaded", remedy="Load a model first.", code="no-model")
    best = 0.0
    copy = _Copy(loaded.device)
    for done in range(ROUNDS):
        if cancelled():
            raise Cancelled("Stopped")
        progress("measuring memory", done, ROUNDS)
        best = max(best, copy.bytes_per_second())
    return {"copy_bytes_per_second": best, "token_bytes": float(token_bytes(loaded.model))}


class _Copy:
    """Copies a tensor on a device; what is read and what is written both count."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._source = torch.zeros(COPY_BYTES["cuda" if self._cuda else "cpu"], dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def bytes_per_second(self) -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(cores())
        try:
            begun = time.perf_counter()
            self._target.copy_(self._source)
            if self._cuda:
                torch.cuda.synchronize(self._source.device)
            return 2 * int(self._source.numel()) / (time.perf_counter() - begun)
        finally:
            torch.set_num_threads(threads)


def token_bytes(model: Any) -> int:
    """Bytes of weights that decoding one token reads.

    Of an embedding table that is not also the output head one row is read, and of a mixture's experts only the chosen.
    """
    config = model.config.get_text_config()
    share = _first(config, CHOSEN) / total if (total := _first(config, ALL)) else 1.0
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and getattr(head, "weight", None) is table
    seen: set[int] = set()
    read = 0.0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) in seen or (tensor is table and not tied):
            continue
        seen.add(id(tensor))
        read += tensor.numel() * tensor.element_size() * (share if any(mark in name for mark in EXPERTS) else 1.0)
    return int(read) + (0 if tied else table.shape[-1] * table.element_size())


def _first(config: Any, names: tuple[str, ...]) -> int:
    found = (getattr(config, name, None) for name in names)
    return next((int(value) for value in found if isinstance(value, int) and value), 0)
