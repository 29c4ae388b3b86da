"""Headers of GGUF files, read without their weights and without the large arrays in between.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; a header names its byte order by what its version
reads as. Types and block sizes are those of `gguf.constants.GGML_QUANT_SIZES` (gguf 0.19).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from quantchat.catalog.files import LFS_MAGIC, RegularFile
from quantchat.catalog.problems import Defect, defect

MAGIC = b"GGUF"
VERSIONS = (2, 3)
WINDOW = 1024**2
"""Bytes held at a time."""
MOST_KEYS, MOST_TENSORS, MOST_ITEMS, MOST_NESTED = 4096, 32768, 4_000_000, 256
LONGEST_NAME, LONGEST_TEXT, KEPT_TEXT = 256, 256 * 1024, 4 * 1024**2
MOST_DIMENSIONS, MOST_ELEMENTS, KEPT_ITEMS = 8, 2**46, 512
ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {code: struct.calcsize(f"<{letter}") for code, letter in _NUMBERS.items()}

Value = int | float | bool | str | list[int | float | bool]


class BlockType(msgspec.Struct, frozen=True):
    """How a ggml type packs weights: so many weights in so many bytes."""

    name: str
    weights: int
    size: int

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return self.size * 8 / self.weights


TYPES = {
    code: BlockType(name, weights, size)
    for code, name, weights, size in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18),
    )
}  # fmt: skip
PLAIN = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
"""`LlamaFileType`: the recipe by which the types of the tensors were chosen."""


class GgufTensor(msgspec.Struct, frozen=True):
    """A tensor as the header describes it; `begin` in bytes from the end of the header."""

    name: str
    shape: tuple[int, ...]
    type: int
    begin: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes; 0 for a type that is not known."""
        block = TYPES.get(self.type)
        return -(-self.elements // block.weights) * block.size if block else 0


class GgufHeader(msgspec.Struct, frozen=True):
    """What one GGUF file says of itself.

    Attributes:
        values: Numbers, texts and short arrays of numbers, by key.
        lengths: Number of items of each array.
        tensors: All of this file.
        file_size: Bytes that are there.
    """

    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]
    file_size: int

    @property
    def weight_bytes(self) -> int:
        """Sum of the tensors in bytes."""
        return sum(tensor.size for tensor in self.tensors)

    def number(self, key: str) -> int:
        """Return a whole number, of an array the largest; 0 if there is none."""
        value = self.values.get(key)
        found = max(value, default=0) if isinstance(value, list) else value
        return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**40 else 0

    def text(self, key: str) -> str:
        """Return a text; empty if there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


def read_gguf(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        Defect: The file is unreadable, cut off, damaged, or a Git LFS pointer.
    """
    with RegularFile(str(path)) as file:
        return _Reader(file).header()


class _Reader:
    """Goes through a header with a window of the file in memory."""

    def __init__(self, file: RegularFile) -> None:
        self._file, self._name, self._size = file, file.name, file.size
        self._window, self._start, self._at = b"", 0, 0
        self._byte_order: Literal["little", "big"] = "little"
        self._order, self._items, self._kept = "<", 0, 0

    def header(self) -> GgufHeader:
        tensor_count, key_count = self._preamble()
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(key_count):
            key = self._label()
            self._value(key, self._integer(4), values, lengths)
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        self._check_end(values, tensors)
        return GgufHeader(values, lengths, tensors, self._size)

    def _preamble(self) -> tuple[int, int]:
        start = self._bytes(4)
        if start != MAGIC:
            if LFS_MAGIC.startswith(start):
                raise defect("lfs-pointer", file=self._name)
            text = start.isascii() and start.decode("ascii").isprintable()
            raise self._damaged("it is a text, such as a web page" if text else "it does not begin with GGUF")
        version = self._integer(4)
        if version and version & 0xFFFF == 0:
            self._order, self._byte_order = ">", "big"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in VERSIONS:
            raise self._damaged(f"version {version} is not known")
        tensor_count, key_count = self._integer(8), self._integer(8)
        if tensor_count > MOST_TENSORS or key_count > MOST_KEYS:
            raise self._damaged(f"it claims {tensor_count} tensors and {key_count} keys")
        return tensor_count, key_count

    def _value(self, key: str, kind: int, values: dict[str, Value], lengths: dict[str, int]) -> None:
        if kind == _STRING:
            self._keep_text(key, values)
        elif kind == _ARRAY:
            lengths[key] = self._array(key, values)
        elif kind in _NUMBERS:
            values[key] = self._scalar(kind)
        else:
            raise self._damaged(f"value type {kind} is not known")

    def _array(self, key: str, values: dict[str, Value], *, nested: bool = False) -> int:
        kind, count = self._integer(4), self._integer(8)
        self._items += count
        if self._items > MOST_ITEMS or (kind == _ARRAY and (nested or count > MOST_NESTED)):
            raise self._damaged(f"the array {key} is far too long or deep")
        if kind == _STRING:
            self._skip_texts(count)
        elif kind == _ARRAY:
            for _ in range(count):
                self._array(key, values, nested=True)
        elif kind not in _NUMBERS:
            raise self._damaged(f"array type {kind} is not known")
        elif count <= KEPT_ITEMS and not nested:
            values[key] = [self._scalar(kind) for _ in range(count)]
        else:
            self._skip(count * _SIZES[kind])
        return count

    def _tensor(self) -> GgufTensor:
        name = self._label()
        dimensions = self._integer(4)
        if dimensions > MOST_DIMENSIONS:
            raise self._damaged(f"a tensor claims {dimensions} dimensions")
        shape = tuple(self._integer(8) for _ in range(dimensions))
        tensor = GgufTensor(name, shape, self._integer(4), self._integer(8))
        if tensor.elements > MOST_ELEMENTS:
            raise self._damaged(f"tensor {name} claims {tensor.elements} weights")
        return tensor

    def _check_end(self, values: Mapping[str, Value], tensors: tuple[GgufTensor, ...]) -> None:
        stated = values.get("general.alignment")
        alignment = stated if isinstance(stated, int) and 0 < stated <= WINDOW else ALIGNMENT
        header = -(-self._position() // alignment) * alignment
        end = max((tensor.begin + tensor.size for tensor in tensors), default=0)
        if tensors and header + end > self._size:
            raise defect("weights-truncated", file=self._name, expected=header + end, actual=self._size)

    def _position(self) -> int:
        return self._start + self._at

    def _need(self, count: int) -> None:
        """Have so many bytes in the window."""
        if self._at + count <= len(self._window):
            return
        position = self._position()
        if position + count > self._size:
            raise self._cut_off(position + count)
        self._window, self._start, self._at = self._file.read(max(WINDOW, count), position), position, 0
        if len(self._window) < count:
            raise self._cut_off(position + count)

    def _bytes(self, count: int) -> bytes:
        self._need(count)
        found = self._window[self._at : self._at + count]
        self._at += count
        return found

    def _integer(self, size: int) -> int:
        """Read a length, a count or a type: whole numbers without a sign."""
        return int.from_bytes(self._bytes(size), self._byte_order)

    def _scalar(self, kind: int) -> int | float | bool:
        (value,) = struct.unpack(f"{self._order}{_NUMBERS[kind]}", self._bytes(_SIZES[kind]))
        assert isinstance(value, int | float | bool)
        return value

    def _label(self) -> str:
        length = self._integer(8)
        if length > LONGEST_NAME:
            raise self._damaged(f"a name claims {length} bytes")
        return self._bytes(length).decode("utf-8", "replace")

    def _keep_text(self, key: str, values: dict[str, Value]) -> None:
        """Keep a text of common length; long licences and the like are passed over."""
        length = self._integer(8)
        self._kept += length
        if length > LONGEST_TEXT or self._kept > KEPT_TEXT:
            self._skip(length)
        else:
            values[key] = self._bytes(length).decode("utf-8", "replace")

    def _skip(self, count: int) -> None:
        if self._position() + count > self._size:
            raise self._cut_off(self._position() + count)
        self._at += count

    def _skip_texts(self, count: int) -> None:
        """Pass over a vocabulary: half a million texts, so that the loop is kept short."""
        length_of = struct.Struct(f"{self._order}Q").unpack_from
        while count:
            self._need(8)
            window, at, last = self._window, self._at, len(self._window) - 8
            while count and at <= last:
                at += 8 + length_of(window, at)[0]
                count -= 1
            self._at = at
            self._skip(0)

    def _cut_off(self, expected: int) -> Defect:
        return defect("weights-truncated", file=self._name, expected=f"at least {expected}", actual=self._size)

    def _damaged(self, why: str) -> Defect:
        return defect("gguf-damaged", file=self._name, why=why)
