"""Headers of safetensors files, read without their weights.

Format: 8 bytes little-endian header length, a JSON object of that length, the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from quantchat.catalog.files import LFS_MAGIC, open_regular
from quantchat.catalog.problems import defect

HEADER_LIMIT = 100_000_000
"""Bytes; the limit of the safetensors library itself."""
LENGTH_BYTES = 8

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class _Item(msgspec.Struct):
    """A value of the header: a tensor, or the metadata, of which only the writer's `format` matters."""

    dtype: str = ""
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=16)] = ()
    data_offsets: tuple[_Count, _Count] | None = None
    format: str = ""


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor as the header describes it; offsets in bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of stored elements; a packed integer counts as one."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin


class Header(msgspec.Struct, frozen=True):
    """The tensors of one file, which framework wrote it (`pt`, `mlx`, or nothing), and the sum of their bytes."""

    tensors: tuple[TensorInfo, ...]
    written_by: str = ""
    weight_bytes: int = 0


_DECODER = msgspec.json.Decoder(dict[str, _Item])


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        Defect: The file is unreadable, truncated, damaged, or a Git LFS pointer.
    """
    with open_regular(path) as (file, size):
        text = _header_text(file, path.name, size)
    return _parse(text, path.name, size)


def _header_text(file: BinaryIO, name: str, file_size: int) -> bytes:
    start = file.read(LENGTH_BYTES)
    if LFS_MAGIC.startswith(start) and (start + file.read(len(LFS_MAGIC))).startswith(LFS_MAGIC):
        raise defect("lfs-pointer", file=name)
    if len(start) < LENGTH_BYTES:
        raise defect("weights-truncated", file=name, expected=f"at least {LENGTH_BYTES}", actual=file_size)
    (length,) = struct.unpack("<Q", start)
    if length > HEADER_LIMIT:
        raise defect("weights-damaged", file=name, why=f"its header claims {length} bytes")
    text = file.read(length) if LENGTH_BYTES + length <= file_size else b""
    if len(text) < length:
        raise defect("weights-truncated", file=name, expected=f"at least {LENGTH_BYTES + length}", actual=file_size)
    return text


def _parse(text: bytes, name: str, file_size: int) -> Header:
    try:
        items = _DECODER.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise defect("weights-damaged", file=name, why=error) from error
    metadata = items.pop("__metadata__", _Item())
    tensors = tuple(_tensor(key, item, name) for key, item in items.items())
    end, total = max((tensor.end for tensor in tensors), default=0), sum(one.end - one.begin for one in tensors)
    expected = LENGTH_BYTES + len(text) + end
    if file_size < expected:
        raise defect("weights-truncated", file=name, expected=expected, actual=file_size)
    if file_size > expected or total != end:
        raise defect("weights-damaged", file=name, why="its tensors do not add up to its size")
    return Header(tensors, metadata.format, total)


def _tensor(key: str, item: _Item, file: str) -> TensorInfo:
    if item.data_offsets is None:
        raise defect("weights-damaged", file=file, why=f"tensor {key} has no offsets")
    begin, end = item.data_offsets
    bits = DTYPE_BITS.get(item.dtype)
    if end < begin or (bits is not None and math.prod(item.shape) * bits != (end - begin) * 8):
        raise defect("weights-damaged", file=file, why=f"the offsets of tensor {key} do not agree with its shape")
    return TensorInfo(key, item.dtype, item.shape, begin, end)
