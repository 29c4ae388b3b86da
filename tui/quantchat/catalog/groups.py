"""The tensors of a model in groups of equals: a network repeats a dozen of them in every layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from quantchat.catalog.safetensors import TensorInfo

_DIGITS = b"0123456789"


class Group(msgspec.Struct, frozen=True):
    """Tensors of one dtype and shape whose names differ in their numbers alone.

    Attributes:
        pattern: Their common name without its digits.
    """

    pattern: str
    dtype: str
    shape: tuple[int, ...]
    tensors: tuple[TensorInfo, ...]

    @property
    def elements(self) -> int:
        """Stored elements of each."""
        return self.tensors[0].elements

    def __len__(self) -> int:
        return len(self.tensors)


def group(tensors: Iterable[TensorInfo]) -> tuple[Group, ...]:
    """Sort tensors into groups, in the order in which the first of each comes."""
    found: dict[tuple[bytes, str, tuple[int, ...]], list[TensorInfo]] = defaultdict(list)
    for tensor in tensors:
        # Bytes lose characters nine times faster than texts.
        pattern = tensor.name.encode("utf-8", "replace").translate(None, _DIGITS)
        found[pattern, tensor.dtype, tensor.shape].append(tensor)
    return tuple(Group(key.decode(), dtype, shape, tuple(equal)) for (key, dtype, shape), equal in found.items())
