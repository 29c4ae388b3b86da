"""Sorts the tensors of a model by what a load makes of them, from their headers alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby

import msgspec

from quantchat.catalog.definitions import Format
from quantchat.catalog.formats import BY_NAME
from quantchat.catalog.groups import Group
from quantchat.catalog.safetensors import FLOATS, TensorInfo
from quantchat.catalog.shape import number, text_config
from quantchat.domain.kernels import QUANTIZED_METHODS, WORD, packed_matrices
from quantchat.domain.models import LayerRun, Pieces, QuantSpec, WeightSizes
from quantchat.domain.placement import in_list, is_input

Config = Mapping[str, object]
Place = tuple[str, int]
"""A list of modules, and the number of a module in it."""
Sums = dict[str, int]
"""Of the fields of `Pieces`."""

PACKED = {"qweight": "packed", "qzeros": "zeros", "scales": "scales", "g_idx": "order"}
IGNORED = re.compile(r"(^|\.)mtp\.|rotary_emb\.inv_freq$|\.masked_bias$")
"""What transformers leaves on disk (`_keys_to_ignore_on_load_unexpected` of its models)."""
HEADS = ("lm_head.weight", "embed_out.weight")
MXFP4_BLOCKS, MXFP4_SCALES = ("_blocks",), ("_scales",)
"""Two weights to a byte, and a scale for each block of 32 (`integrations/mxfp4.py` of transformers)."""
LARGEST_COUNT = 2**62
LARGEST_SIDE = 2**31
LARGEST_LIST = 2**16


def weigh(groups: Iterable[Group], spec: QuantSpec, config: Config) -> WeightSizes:
    """Sort the tensors of a model into its layers and what comes before and after them.

    Args:
        groups: The tensors of all files, as their headers describe them.
        spec: How the weights are quantized.
        config: The whole `config.json`.
    """
    text = text_config(config)
    tied, chosen = text.get("tie_word_embeddings") is True, number(text, "num_experts_per_tok") or 1
    kept = [group for group in groups if _is_loaded(group.tensors[0].name, tied=tied)]
    packed = _packed_modules(kept, spec)
    parts = _split(kept, packed, spec, number(text, "num_hidden_layers") or LARGEST_LIST)
    matrices = [group.shape for group in kept if packed and group.pattern.endswith(".qweight")]
    return WeightSizes(
        prefix=parts.prefix,
        layers=_runs(_pieces(parts.layers[index]) for index in sorted(parts.layers)),
        inputs=_pieces(parts.inputs),
        outputs=_pieces(parts.outputs),
        matrices=tuple(sorted(size for size in packed_matrices(matrices, spec) if max(size) < LARGEST_SIDE)),
        largest=max((_weights(shape, spec) for shape in matrices), default=0),
        widest=max((_width(group.tensors[0], chosen) for group in parts.repeated), default=0),
    )


def is_tied(config: Config, groups: Iterable[Group]) -> bool:
    """Whether the output head shares the embedding's weights: the config says so, or there is no head on disk."""
    if text_config(config).get("tie_word_embeddings") is True:
        return True
    return not any(group.pattern.rpartition(".")[0].endswith(("lm_head", "embed_out")) for group in groups)


def _is_loaded(name: str, *, tied: bool) -> bool:
    return not (IGNORED.search(name) or (tied and name.endswith(HEADS)))


def _no_sums() -> Sums:
    return defaultdict(int)


class _Parts(msgspec.Struct):
    """What the layers are made of, by their numbers; what comes before and after them; the groups in layers."""

    prefix: str
    layers: dict[int, Sums] = msgspec.field(default_factory=lambda: defaultdict(_no_sums))
    inputs: Sums = msgspec.field(default_factory=_no_sums)
    outputs: Sums = msgspec.field(default_factory=_no_sums)
    repeated: list[Group] = []


def _split(groups: Iterable[Group], packed: frozenset[str], spec: QuantSpec, last: int) -> _Parts:
    """Part the list of modules that weighs most from the rest; what lies past the last layer is not loaded."""
    families = _families(groups)
    parts = _Parts(_heaviest(families))
    for places, family in families:
        sums = [_sums(group.tensors[0], packed, spec) for group in family]
        together = _no_sums()
        for one in sums:
            _add(together, one, 1)
        inside = {place[1]: count for place, count in places.items() if place and place[0] == parts.prefix}
        for index, count in inside.items():
            if index < last:
                _add(parts.layers[index], together, count)
        if any(index < last for index in inside):
            parts.repeated += family
        outside = places.total() - sum(inside.values())
        for group, one in zip(family, sums, strict=True) if outside else ():
            _add(parts.inputs if is_input(group.tensors[0].name) else parts.outputs, one, outside)
    return parts


def _families(groups: Iterable[Group]) -> list[tuple[Counter[Place | None], list[Group]]]:
    """Gather the groups that lie at the same places of lists of modules, and count how often at each."""
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.beginnings].append(group)
    return [(Counter(map(in_list, beginnings.split("\n")[:-1])), family) for beginnings, family in found.items()]


def _heaviest(families: Iterable[tuple[Counter[Place | None], Iterable[Group]]]) -> str:
    sizes: Counter[str] = Counter()
    for places, family in families:
        size = sum(group.tensors[0].size for group in family)
        for place, count in places.items():
            if place is not None:
                sizes[place[0]] += size * count
    return max(sizes, key=lambda name: sizes[name], default="")


def _packed_modules(groups: Iterable[Group], spec: QuantSpec) -> frozenset[str]:
    if spec.method not in QUANTIZED_METHODS:
        return frozenset()
    packed = (group for group in groups if group.pattern.endswith(".qweight"))
    return frozenset(tensor.name.removesuffix(".qweight") for group in packed for tensor in group.tensors)


def _sums(tensor: TensorInfo, packed: frozenset[str], spec: QuantSpec) -> Sums:
    """Return what a tensor adds to the fields of `Pieces`."""
    definition = BY_NAME.get(spec.method)
    if definition is not None and definition.unpacks(spec):
        return {"floats": _unpacked(tensor, definition, spec)}
    module, _, part = tensor.name.rpartition(".")
    kind = PACKED.get(part) if module in packed else None
    if kind is None:
        counted = tensor.dtype in FLOATS
        return {"floats" if counted else "other": tensor.elements if counted else tensor.size}
    if kind == "packed":
        return {kind: tensor.size, "packed_weights": tensor.size * 8 // (spec.bits or 4)}
    return {kind: tensor.elements if kind == "scales" else tensor.size}


def _add(sums: Sums, more: Sums, times: int) -> None:
    for name, count in more.items():
        sums[name] += count * times


def _pieces(sums: Sums) -> Pieces:
    return Pieces(**{name: min(count, LARGEST_COUNT) for name, count in sums.items()})


def _unpacked(tensor: TensorInfo, definition: Format, spec: QuantSpec) -> int:
    """Weights in a tensor of a format whose matrices a load turns into 16 bits; scales and the like are dropped."""
    if tensor.name.endswith((*definition.beside, *MXFP4_SCALES)):
        return 0
    if definition.packed and tensor.name.endswith(definition.packed) and tensor.dtype not in FLOATS:
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
