"""What the tensors of a GGUF file weigh, layer by layer: what llama.cpp divides between GPUs and the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from quantchat.catalog.gguf import GgufTensor
from quantchat.domain.models import LayerRun, Pieces, WeightSizes

PREFIX = "blk"
_LAYER = re.compile(r"^blk\.(\d+)\.")
_MOST_LAYERS = 4096


def weigh(tensors: Iterable[GgufTensor]) -> WeightSizes:
    """Sort the tensors of a model into layers and what stands before and after them; as they are stored."""
    layers: dict[int, int] = {}
    inputs = outputs = widest = 0
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if found is not None and (number := int(found[1])) < _MOST_LAYERS:
            layers[number] = layers.get(number, 0) + tensor.size
            # ggml writes the input features of a matrix first.
            widest = max(widest, tensor.shape[1] if len(tensor.shape) == 2 else 0)
        elif tensor.name.startswith("output"):
            outputs += tensor.size
        else:
            inputs += tensor.size
    sizes = [layers[number] for number in sorted(layers)]
    return WeightSizes(
        prefix=PREFIX,
        layers=tuple(LayerRun(len(list(run)), Pieces(other=size)) for size, run in groupby(sizes)),
        inputs=Pieces(other=inputs),
        outputs=Pieces(other=outputs),
        widest=widest,
    )
