"""How vLLM divides a model over GPUs: each matrix among some (tensor parallel), runs of layers among others (pipeline).

A matrix is divided by its rows or its columns, so the sizes of the network say among how many it can be.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from quantchat.domain.models import ModelInfo

COLUMNS, ROWS = 128, 64
"""Input and output features in whole multiples of which Marlin works (`GPTQ_MARLIN_MIN_THREAD_K`, `_N` in vLLM)."""


class Split(msgspec.Struct, frozen=True):
    """Sizes of vLLM's two ways to use several GPUs."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def gpus(self) -> int:
        """How many GPUs that takes."""
        return self.tensor * self.pipeline

    def options(self) -> Iterator[str]:
        """Return the words of the command line."""
        if self.tensor > 1:
            yield from ("--tensor-parallel-size", str(self.tensor))
        if self.pipeline > 1:
            yield from ("--pipeline-parallel-size", str(self.pipeline))


def split(model: ModelInfo, gpus: int, nodes: int = 1) -> Split | None:
    """Divide a model over so many GPUs on each of some machines; None if it has too few layers for that.

    Matrices stay within a machine, whose GPUs talk fast, and are divided as far as they can be.
    """
    tensor = max(size for size in range(1, gpus + 1) if gpus % size == 0 and not obstacle(model, size))
    pipeline = nodes * gpus // tensor
    return Split(tensor, pipeline) if pipeline <= max(model.shape.layers, 1) else None


def obstacle(model: ModelInfo, tensor: int) -> str:
    """Say why the matrices of a model cannot be divided among so many GPUs; empty if they can."""
    return next(_obstacles(model, tensor), "") if tensor > 1 else ""


def _obstacles(model: ModelInfo, tensor: int) -> Iterator[str]:
    shape = model.shape
    if not shape.attention_heads:
        yield "its config does not say how many attention heads it has"
    if shape.attention_heads % tensor:
        yield f"its {shape.attention_heads} attention heads cannot be divided by {tensor}"
    if shape.kv_heads and shape.kv_heads % tensor and tensor % shape.kv_heads:
        yield f"its {shape.kv_heads} heads for keys and values cannot be divided by {tensor}, nor that by them"
    if model.quant.method in ("gptq", "awq"):
        yield from _packed_obstacles(model, tensor)


def _packed_obstacles(model: ModelInfo, tensor: int) -> Iterator[str]:
    """Outputs of attention and feed-forward blocks are divided by their input features, all others by the output."""
    shape, group = model.shape, model.quant.group_size or -1
    heads = shape.attention_heads * shape.head_size
    inputs = {columns for columns, _ in model.weights.matrices if columns != shape.hidden_size} | {heads}
    for columns in sorted(inputs - {0}):
        if columns % tensor or (columns // tensor) % COLUMNS:
            yield f"a quantized matrix has {columns} input features, and {COLUMNS} belong together"
        elif group > 0 and (columns // tensor) % group:
            yield f"a quantized matrix has {columns} input features in groups of {group}"
    for rows in sorted({rows for _, rows in model.weights.matrices if rows != shape.hidden_size}):
        if rows % tensor or (rows // tensor) % ROWS:
            yield f"a quantized matrix has {rows} output features, and {ROWS} belong together"
