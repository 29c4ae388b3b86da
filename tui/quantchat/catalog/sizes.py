"""Sorts the tensors of a model by what a load makes of them, from their headers alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from quantchat.catalog.definitions import Format
from quantchat.catalog.formats import BY_NAME
from quantchat.catalog.safetensors import TensorInfo
from quantchat.catalog.shape import text_config
from quantchat.domain.kernels import QUANTIZED_METHODS, WORD, packed_matrices
from quantchat.domain.models import LayerRun, Pieces, QuantSpec, WeightSizes
from quantchat.domain.placement import in_list, is_input

Config = Mapping[str, object]

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
PACKED = {"qweight": "packed", "qzeros": "zeros", "scales": "scales", "g_idx": "order"}
IGNORED = re.compile(r"(^|\.)mtp\.|rotary_emb\.inv_freq$|\.masked_bias$")
"""What transformers leaves on disk (`_keys_to_ignore_on_load_unexpected` of its models)."""
HEADS = ("lm_head.weight", "embed_out.weight")
MXFP4_BLOCKS, MXFP4_SCALES = ("_blocks",), ("_scales",)
"""Two weights to a byte, and a scale for each block of 32 (`integrations/mxfp4.py` of transformers)."""
LARGEST_COUNT = 2**62
LARGEST_SIDE = 2**31
LARGEST_LIST = 2**16


def weigh(tensors: Sequence[TensorInfo], spec: QuantSpec, config: Config) -> WeightSizes:
    """Sort the tensors of a model into its layers and what comes before and after them.

    Args:
        tensors: Of all files, as their headers describe them.
        spec: How the weights are quantized.
        config: The whole `config.json`.
    """
    text = text_config(config)
    tied, chosen = text.get("tie_word_embeddings") is True, _number(text, "num_experts_per_tok") or 1
    kept = [tensor for tensor in tensors if _is_loaded(tensor.name, tied=tied)]
    packed = _packed_modules(kept, spec)
    prefix, layers, ends = _split(kept, _number(text, "num_hidden_layers") or LARGEST_LIST)
    matrices = [tensor.shape for tensor in kept if packed and tensor.name.endswith(".qweight")]
    return WeightSizes(
        prefix=prefix,
        layers=_runs(_pieces(layers[index], packed, spec) for index in sorted(layers)),
        inputs=_pieces((tensor for tensor in ends if is_input(tensor.name)), packed, spec),
        outputs=_pieces((tensor for tensor in ends if not is_input(tensor.name)), packed, spec),
        matrices=tuple(sorted(size for size in packed_matrices(matrices, spec) if max(size) < LARGEST_SIDE)),
        largest=max((_weights(shape, spec) for shape in matrices), default=0),
        widest=max((_width(tensor, chosen) for part in layers.values() for tensor in part), default=0),
    )


def is_tied(config: Config, tensors: Iterable[TensorInfo]) -> bool:
    """Whether the output head shares the embedding's weights: the config says so, or there is no head on disk."""
    if text_config(config).get("tie_word_embeddings") is True:
        return True
    return not any(tensor.name.rpartition(".")[0].endswith(("lm_head", "embed_out")) for tensor in tensors)


def _is_loaded(name: str, *, tied: bool) -> bool:
    return not (IGNORED.search(name) or (tied and name.endswith(HEADS)))


def _split(tensors: Sequence[TensorInfo], last: int) -> tuple[str, dict[int, list[TensorInfo]], list[TensorInfo]]:
    """Part the list of modules that weighs most from the rest; what lies past the last layer is not loaded."""
    lists: dict[str, dict[int, list[TensorInfo]]] = defaultdict(lambda: defaultdict(list))
    bytes_of: dict[str, int] = defaultdict(int)
    places = []
    for tensor in tensors:
        place = in_list(tensor.name)
        if place is not None:
            lists[place[0]][place[1]].append(tensor)
            bytes_of[place[0]] += tensor.size
        places.append((tensor, place))
    prefix = max(bytes_of, key=lambda name: bytes_of[name], default="")
    ends = [tensor for tensor, place in places if place is None or place[0] != prefix]
    return prefix, {index: part for index, part in lists[prefix].items() if index < last}, ends


def _packed_modules(tensors: Iterable[TensorInfo], spec: QuantSpec) -> frozenset[str]:
    if spec.method not in QUANTIZED_METHODS:
        return frozenset()
    return frozenset(tensor.name.removesuffix(".qweight") for tensor in tensors if tensor.name.endswith(".qweight"))


def _pieces(tensors: Iterable[TensorInfo], packed: frozenset[str], spec: QuantSpec) -> Pieces:
    definition = BY_NAME.get(spec.method)
    if definition is not None and definition.unpacked:
        return Pieces(floats=min(sum(_unpacked(tensor, definition, spec) for tensor in tensors), LARGEST_COUNT))
    sums: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        module, _, part = tensor.name.rpartition(".")
        kind = PACKED.get(part) if module in packed else None
        if kind is None:
            counted = tensor.dtype in FLOATS
            sums["floats" if counted else "other"] += tensor.elements if counted else tensor.size
            continue
        sums[kind] += tensor.elements if kind == "scales" else tensor.size
        if kind == "packed":
            sums["packed_weights"] += tensor.size * 8 // (spec.bits or 4)
    return Pieces(**{name: min(count, LARGEST_COUNT) for name, count in sums.items()})


def _unpacked(tensor: TensorInfo, definition: Format, spec: QuantSpec) -> int:
    """Weights in a tensor of a format whose matrices a load turns into 16 bits; scales and the like are dropped."""
    if tensor.name.endswith((*definition.beside, *MXFP4_SCALES)):
        return 0
    if definition.packed and tensor.name.endswith(definition.packed):
        return tensor.size * 8 // (spec.bits or 4)
    return tensor.elements * 2 if tensor.name.endswith(MXFP4_BLOCKS) else tensor.elements


def _runs(layers: Iterable[Pieces]) -> tuple[LayerRun, ...]:
    return tuple(LayerRun(len(list(run)), pieces) for pieces, run in groupby(layers))


def _width(tensor: TensorInfo, chosen: int) -> int:
    """Output features of a matrix; of an expert's, times the experts that each token goes through."""
    part = tensor.name.rpartition(".")[2]
    if len(tensor.shape) < 2 or part in ("qweight", "qzeros", "g_idx"):
        return 0
    width = tensor.shape[-1] if part == "scales" else tensor.shape[-2]
    return min(width * chosen if ".experts." in tensor.name else width, LARGEST_COUNT)


def _weights(shape: tuple[int, ...], spec: QuantSpec) -> int:
    """Weights in a packed matrix."""
    return min(shape[0] * shape[1] * WORD // (spec.bits or 4), LARGEST_COUNT) if len(shape) == 2 else 0


def _number(config: Config, key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0
