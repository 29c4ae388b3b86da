"""Headers of safetensors files, read without their weights.

Format: 8 bytes little-endian header length, a JSON object of that length, the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Annotated

import msgspec

from quantchat.catalog.files import LFS_MAGIC, RegularFile
from quantchat.catalog.problems import defect

HEADER_LIMIT = 100_000_000
"""Bytes; the limit of the safetensors library itself."""
LENGTH_BYTES = 8
FIRST_BYTES = 64 * 1024
"""Most headers are shorter."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


_NOWHERE = (-1, -1)


class TensorInfo(msgspec.Struct, gc=False):
    """A tensor as the header describes it; offsets in bytes from the end of the header."""

    name: str = ""
    dtype: str = ""
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=16)] = ()
    data_offsets: tuple[_Count, _Count] = _NOWHERE

    @property
    def elements(self) -> int:
        """Number of stored elements; a packed integer counts as one."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        begin, end = self.data_offsets
        return end - begin


class _Item(TensorInfo, gc=False):
    """A value of the header: a tensor, or the metadata, of which only the writer's `format` matters."""

    format: str = ""


class HeaderText(msgspec.Struct, frozen=True):
    """A header as it stands in its file, which has `file_size` bytes."""

    name: str
    text: bytes
    file_size: int


class Header(msgspec.Struct, frozen=True):
    """The tensors of one file, which framework wrote it (`pt`, `mlx`, or nothing), and the sum of their bytes."""

    tensors: tuple[TensorInfo, ...]
    written_by: str = ""
    weight_bytes: int = 0


_DECODER = msgspec.json.Decoder(dict[str, _Item])


def read_header(path: str) -> HeaderText:
    """Read the header of a safetensors file.

    Raises:
        Defect: The file is unreadable, truncated, or a Git LFS pointer.
    """
    with RegularFile(path) as file:
        return HeaderText(file.name, _header_text(file), file.size)


def _header_text(file: RegularFile) -> bytes:
    name, file_size = file.name, file.size
    begin = file.read(FIRST_BYTES)
    start = begin[:LENGTH_BYTES]
    if begin.startswith(LFS_MAGIC):
        raise defect("lfs-pointer", file=name)
    if len(start) < LENGTH_BYTES:
        raise defect("weights-truncated", file=name, expected=f"at least {LENGTH_BYTES}", actual=file_size)
    (length,) = struct.unpack("<Q", start)
    if length > HEADER_LIMIT:
        readable = start.isascii() and start.decode("ascii").isprintable()
        why = "it is a text, such as a web page" if readable else f"its header claims {length} bytes"
        raise defect("weights-damaged", file=name, why=why)
    text = begin[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(begin) < LENGTH_BYTES + length <= file_size:
        text += file.read(length - len(text), len(begin))
    if len(text) < length:
        raise defect("weights-truncated", file=name, expected=f"at least {LENGTH_BYTES + length}", actual=file_size)
    return text


def parse_header(header: HeaderText) -> Header:
    """Parse and check a header.

    Raises:
        Defect: The file is truncated or damaged.
    """
    text, name, file_size = header.text, header.name, header.file_size
    try:
        items = _DECODER.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise defect("weights-damaged", file=name, why=error) from error
    metadata = items.pop("__metadata__", _Item())
    end, total = _place(items, name)
    expected = LENGTH_BYTES + len(text) + end
    if file_size < expected:
        raise defect("weights-truncated", file=name, expected=expected, actual=file_size)
    if file_size > expected or total != end:
        raise defect("weights-damaged", file=name, why="its tensors do not add up to its size")
    return Header(tuple(items.values()), metadata.format, total)


def _place(items: Mapping[str, TensorInfo], file: str) -> tuple[int, int]:
    """Name and check the tensors; return where the last one ends, and the sum of their bytes."""
    last = total = 0
    sizes: dict[tuple[str, tuple[int, ...]], int | None] = {}
    for name, item in items.items():
        item.name = name
        begin, end = item.data_offsets
        kind = item.dtype, item.shape
        if kind not in sizes:
            sizes[kind] = _size(item)
        if end - begin != sizes[kind] or begin < 0:
            _judge(item, sizes[kind], file)
        total += end - begin
        if end > last:
            last = end
    return last, total


def _size(item: TensorInfo) -> int | None:
    """Bytes of a tensor by its shape, -1 if they are not whole; None if its type is not known."""
    bits = DTYPE_BITS.get(item.dtype)
    if bits is None:
        return None
    size, rest = divmod(math.prod(item.shape) * bits, 8)
    return -1 if rest else size


def _judge(item: TensorInfo, expected: int | None, file: str) -> None:
    begin, end = item.data_offsets
    if begin < 0:
        raise defect("weights-damaged", file=file, why=f"tensor {item.name} has no offsets")
    if end < begin or expected is not None:
        raise defect("weights-damaged", file=file, why=f"the offsets of tensor {item.name} do not agree with its shape")
