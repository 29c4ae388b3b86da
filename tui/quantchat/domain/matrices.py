"""Which tensors of a checkpoint a quantizer turns into integers, told by their names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|decoder\.layers)\.\d+\.")
_OTHER = re.compile(
    r"(?:^|[._])(?:visual|vision\w*|audio\w*|image\w*|embed\w*|norm\w*|ln_\w+|rotary\w*|conv\w*|mtp)(?:[._]|$)"
)
_ROUTER = re.compile(r"\.(?:gate|router|shared_expert_gate|wg)(?:\.weight)?$")
_TRANSPOSED = re.compile(r"\.c_(?:attn|proj|fc)\.weight$")
"""Of `Conv1D` modules, as in GPT-2: inputs come first."""
HEADS = ("lm_head.weight", "output.weight", "embed_out.weight")
SMALLEST = 16


class Matrix(msgspec.Struct, frozen=True):
    """Weights that multiply `inputs` numbers into `outputs`; `count` of them in one tensor, as of experts."""

    name: str
    inputs: int
    outputs: int
    count: int = 1

    @property
    def parameters(self) -> int:
        """Weights in all."""
        return self.inputs * self.outputs * self.count

    @property
    def sides(self) -> tuple[int, int]:
        """Inputs and outputs."""
        return self.inputs, self.outputs


def quantizable(tensors: Iterable[tuple[str, Sequence[int]]], lm_head: bool = False) -> Iterator[Matrix]:
    """Yield the matrices of the layers, and the output head if it is wanted."""
    for name, shape in tensors:
        matrix = _matrix(name, shape)
        if matrix is not None and min(matrix.sides) >= SMALLEST and (_in_layer(name) or (lm_head and name in HEADS)):
            yield matrix


def _in_layer(name: str) -> bool:
    return bool(_LAYER.search(name)) and not _OTHER.search(name) and not _ROUTER.search(name)


def _matrix(name: str, shape: Sequence[int]) -> Matrix | None:
    match list(shape):
        case [inputs, outputs] if name.endswith(".weight") and _TRANSPOSED.search(name):
            return Matrix(name, inputs, outputs)
        case [outputs, inputs] if name.endswith(".weight"):
            return Matrix(name, inputs, outputs)
        case [experts, outputs, inputs] if "experts" in name and not name.endswith("bias"):
            return Matrix(name, inputs, outputs, experts)
    return None
