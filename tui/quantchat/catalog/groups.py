"""The tensors of a model in groups of equals: a network repeats a dozen of them in every layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

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

    @property
    def beginnings(self) -> str:
        """The tensors' names up to their last number, a line for each: where in the network they lie."""
        names = [tensor.name for tensor in self.tensors]
        ending = self.pattern.rpartition("..")[2]
        return "\n".join([*names, ""]).replace(f"{ending}\n", "\n")

    def __len__(self) -> int:
        return len(self.tensors)


def group(tensors: Sequence[TensorInfo]) -> tuple[Group, ...]:
    """Sort tensors into groups, in the order in which the first of each comes."""
    found: dict[tuple[bytes, str, tuple[int, ...]], list[TensorInfo]] = defaultdict(list)
    for pattern, tensor in zip(_patterns([tensor.name for tensor in tensors]), tensors, strict=True):
        found[pattern, tensor.dtype, tensor.shape].append(tensor)
    return tuple(Group(key.decode(), dtype, shape, tuple(equal)) for (key, dtype, shape), equal in found.items())


def _patterns(names: Sequence[str]) -> Sequence[bytes]:
    """Take the digits out of names, of all in one go: bytes lose characters nine times faster than texts."""
    patterns = _bare("\n".join(names)).split(b"\n")
    return patterns if len(patterns) == len(names) else [_bare(name) for name in names]


def _bare(text: str) -> bytes:
    return text.encode("utf-8", "replace").translate(None, _DIGITS)
