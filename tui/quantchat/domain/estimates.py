"""What a quantization takes in memory, on the disk and in time, from the sizes of matrices and text alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from quantchat.domain.matrices import Matrix
from quantchat.domain.memory import GIB, MIB
from quantchat.domain.placement import in_list
from quantchat.domain.quantizing import Recipe

PLAIN_BYTES = 2
"""Of a number in bf16, in which models are read, unpacked and merged."""
SCALE_BYTES = 2
ORDER_BYTES = 4
"""GPTQ stores the group of each input."""
HESSIAN_BYTES = 4
HESSIAN_COPIES = 3
"""What is gathered, its inverse, and the work on it."""
LIBRARIES = 850 * MIB
"""The engine process with its libraries and no model."""
CUDA_CONTEXT = 700 * MIB
BATCH = 8
"""Samples that go through a layer at once."""
ACTIVATION_WIDTH = 6
"""Numbers of 2 bytes per token and hidden unit while a batch goes through a layer: attention, gates, their product."""
AWQ_PASSES = 15
"""What the search of scales and clips costs AWQ, in readings of the text; GPTQ reads it twice."""
GPTQ_PASSES = 2
CPU_FLOPS = 4.0e10
"""Floating-point operations per second of one core in bf16 products; measured on two cores without a GPU."""
GPU_FLOPS = 6.0e13
CPU_COLUMN, GPU_COLUMN = 1.8e-4, 4.0e-4
"""Seconds that GPTQ takes for a column of a matrix besides its products: many small steps one after the other."""
CPU_SEARCH, GPU_SEARCH = 8.0e-7, 1.0e-9
"""Seconds of a core, or of a GPU, that the search of the best scale takes per weight."""
START = 12.0
"""Seconds for the engine and its libraries."""
DISK_RATE = 3.0e8
"""Bytes per second, read or written."""
RESERVE = 256 * MIB


class Text(msgspec.Struct, frozen=True):
    """A calibration text: how many samples of how many tokens on average."""

    samples: int
    tokens: float

    @property
    def all_tokens(self) -> float:
        """Of all samples together."""
        return self.samples * self.tokens


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it would run: how many cores, and whether a GPU does the products."""

    cores: int = 1
    gpu: bool = False

    @property
    def flops(self) -> float:
        """Floating-point operations per second."""
        return GPU_FLOPS if self.gpu else CPU_FLOPS * self.busy_cores

    @property
    def busy_cores(self) -> int:
        """Beyond some cores the memory is what is waited for."""
        return min(self.cores, 32)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a quantization takes.

    Attributes:
        host: Bytes of host memory at most.
        device: Bytes of GPU memory at most; 0 without one.
        disk: Bytes that are written, scratch included.
        result: Bytes of the result's weights.
        seconds: From the start of the engine to the whole folder.
    """

    host: int
    device: int
    disk: int
    result: int
    seconds: float


def estimate(
    recipe: Recipe,
    matrices: Sequence[Matrix],
    parameters: int,
    text: Text,
    machine: Machine,
    *,
    copies: int = 0,
) -> Estimate:
    """Estimate a quantization.

    Args:
        recipe: With its group size.
        matrices: All that are quantized.
        parameters: Weights of the whole model.
        text: The calibration text.
        machine: Where it would run.
        copies: Whole copies of the model in bf16 that are written on the way: an unpacked GGUF file, a merged adapter.
    """
    plain, result = parameters * PLAIN_BYTES, result_bytes(recipe, matrices, parameters)
    layers = _layers(matrices)
    layer, work = _layer_bytes(layers), _work_bytes(layers, text)
    host = LIBRARIES + plain + (0 if machine.gpu else layer + work)
    disk = result + copies * plain + RESERVE
    return Estimate(
        host=int(host),
        device=int(CUDA_CONTEXT + 2 * layer + work) if machine.gpu else 0,
        disk=int(disk),
        result=int(result),
        seconds=_seconds(recipe, matrices, text, machine) + START + (plain + disk) / DISK_RATE,
    )


def result_bytes(recipe: Recipe, matrices: Sequence[Matrix], parameters: int) -> int:
    """Bytes of the weights on disk: packed integers, scales, zero points, and what stays in bf16."""
    packed = sum(matrix.parameters for matrix in matrices)
    return (parameters - packed) * PLAIN_BYTES + sum(_packed_bytes(recipe, matrix) for matrix in matrices)


def _packed_bytes(recipe: Recipe, matrix: Matrix) -> int:
    size = recipe.group_size if recipe.group_size and recipe.group_size > 0 else matrix.inputs
    groups = -(-matrix.inputs // size)
    scales = groups * matrix.outputs * (SCALE_BYTES + recipe.bits / 8)
    order = matrix.inputs * ORDER_BYTES if recipe.method == "gptq" else 0
    return int(matrix.count * (matrix.inputs * matrix.outputs * recipe.bits / 8 + scales + order))


def _layers(matrices: Sequence[Matrix]) -> list[list[Matrix]]:
    """Sort matrices into the layers that they belong to; the output head is one of its own."""
    layers: dict[object, list[Matrix]] = defaultdict(list)
    for matrix in matrices:
        layers[in_list(matrix.name)].append(matrix)
    return list(layers.values())


def _layer_bytes(layers: Sequence[Sequence[Matrix]]) -> int:
    """Bytes of the largest layer in bf16."""
    return max((sum(matrix.parameters for matrix in layer) * PLAIN_BYTES for layer in layers), default=0)


def _work_bytes(layers: Sequence[Sequence[Matrix]], text: Text) -> float:
    """Hessians of a layer, what enters and leaves a layer for all samples, and one batch on its way through it."""
    inputs = [matrix.inputs for layer in layers for matrix in layer]
    widest, hidden = max(inputs, default=0), min(inputs, default=0)
    hessians = max((sum(matrix.inputs**2 * matrix.count for matrix in layer) for layer in layers), default=0)
    kept = 2 * text.all_tokens * hidden * PLAIN_BYTES
    batch = BATCH * text.tokens * widest * ACTIVATION_WIDTH * PLAIN_BYTES
    return (hessians + HESSIAN_COPIES * widest**2) * HESSIAN_BYTES + kept + batch


def _seconds(recipe: Recipe, matrices: Sequence[Matrix], text: Text, machine: Machine) -> float:
    passes = AWQ_PASSES if recipe.method == "awq" else GPTQ_PASSES
    weights = sum(matrix.parameters for matrix in matrices)
    reading = 2 * weights * text.all_tokens * passes / machine.flops
    if recipe.method == "awq":
        return reading
    columns = sum(matrix.inputs * matrix.count for matrix in matrices)
    products = sum(matrix.inputs**2 * matrix.outputs * matrix.count for matrix in matrices)
    search = weights * (GPU_SEARCH if machine.gpu else CPU_SEARCH / machine.busy_cores)
    return reading + search + columns * (GPU_COLUMN if machine.gpu else CPU_COLUMN) + 2 * products / machine.flops


def usable(free: int) -> int:
    """Bytes of `free` memory that may be planned with: the rest of the machine wants to go on."""
    return max(free - max(free // 20, GIB // 4), 0)
