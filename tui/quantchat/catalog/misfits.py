"""Whether weights lie as transformers unpacks them: otherwise it computes noise, and says nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from quantchat.catalog.groups import Group
from quantchat.domain.models import QuantSpec

Grouped = Mapping[str, list[Group]]

_READ = ("weight_scale_inv", "scale", "qscale_weight")
"""What `FineGrainedFP8HfQuantizer` takes for the scales of a weight."""
_UNREAD = ("weight_scale", "weight_scales")
_WEIGHT = "weight"
_ORDER = ".weight_g_idx"
_FP8 = ("F8_E4M3", "F8_E5M2")


def fp8_misfit(groups: Sequence[Group], spec: QuantSpec) -> str:
    """Say why the weights cannot be unpacked; empty if they can."""
    by_pattern: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_pattern[group.pattern].append(group)
    return next(_faults(groups, by_pattern, spec.group_size), "")


def reordered(groups: Sequence[Group], _: QuantSpec) -> str:
    """Say that compressed-tensors weights are in act-order: transformers leaves out the index of their groups."""
    found = any(group.pattern.endswith(_ORDER) for group in groups)
    return "transformers does not read its act-order" if found else ""


def _faults(groups: Sequence[Group], by_pattern: Grouped, block: int | None) -> Iterator[str]:
    for weights in groups:
        if weights.dtype not in _FP8 or len(weights.shape) != 2 or not weights.pattern.endswith(f".{_WEIGHT}"):
            continue
        scales = _beside(weights, by_pattern, _READ)
        if scales is None and _beside(weights, by_pattern, _UNREAD) is not None:
            yield f"its scales are called {_UNREAD[0]}, which transformers does not read"
        if scales is not None and len(scales.shape) == 2 and not _in_blocks(weights.shape, scales.shape, block):
            rows, columns = weights.shape
            yield f"transformers unpacks whole blocks only, and a matrix of {rows} by {columns} has others"


def _beside(weights: Group, by_pattern: Grouped, names: Sequence[str]) -> Group | None:
    """Return the group that holds the scales of the first of these weights."""
    first, pattern = weights.tensors[0].name, weights.pattern
    for name in names:
        wanted = first.removesuffix(_WEIGHT) + name
        for group in by_pattern.get(pattern.removesuffix(_WEIGHT) + name, ()):
            if any(tensor.name == wanted for tensor in group.tensors):
                return group
    return None


def _in_blocks(weights: Sequence[int], scales: Sequence[int], block: int | None) -> bool:
    """Whether the size of the blocks is that of the matrix over that of its scales, which is how it is computed."""
    for size, count in zip(weights, scales, strict=True):
        if count < 1 or size % count:
            return False
        if block and 1 < count < size and size % block and count == -(-size // block):
            return False
    return True
