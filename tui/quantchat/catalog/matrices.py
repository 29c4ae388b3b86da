"""The matrices of a model that a quantizer would pack, told by the headers of its files alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from quantchat.catalog.files import Folder
from quantchat.catalog.gguf import read_gguf
from quantchat.catalog.problems import Defect
from quantchat.catalog.safetensors import FLOATS
from quantchat.catalog.weights import find_weights, read_weights
from quantchat.domain.matrices import Matrix, quantizable
from quantchat.domain.models import ModelInfo

Tensors = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes, inputs last."""
GGUF_ROUTER = "ffn_gate_inp"


def matrices(model: ModelInfo, *, lm_head: bool = False) -> tuple[Matrix, ...]:
    """Return the matrices of an unquantized model; none where its files do not tell.

    Args:
        model: As the catalog read it.
        lm_head: With the output head.
    """
    try:
        return tuple(quantizable(_tensors(model.path, model.modified), lm_head))
    except Defect:
        return ()


@lru_cache(maxsize=16)
def _tensors(path: str, _modified: float) -> Tensors:
    return _of_file(Path(path)) if path.endswith(".gguf") else _of_folder(Path(path))


def _of_folder(folder: Path) -> Tensors:
    tensors = read_weights(find_weights(Folder(folder))).tensors
    return tuple((tensor.name, tensor.shape) for tensor in tensors if tensor.dtype in FLOATS)


def _of_file(path: Path) -> Tensors:
    """Write what llama.cpp calls its tensors as transformers would."""
    return tuple(
        (tensor.name.replace("blk.", "layers.", 1).replace("_exps", ".experts"), tensor.shape[::-1])
        for tensor in read_gguf(path).tensors
        if GGUF_ROUTER not in tensor.name
    )
