"""Files that hold what a model said of every token of a text, bit for bit, to be compared with another model later.

Layout: a magic line, the length of the header in eight bytes (little endian), the header (JSON), then for each piece of
the text the logits of its predicted tokens, in the dtype in which the model computed them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import torch

from quantchat.domain.memory import MIB, format_bytes
from quantchat.errors import JobError, StorageError

MAGIC = b"quantchat logits 1\n"
LENGTH = 8
RESERVE = 64 * MIB
"""Bytes of the disk that are left to others."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

Pieces = list[list[int]]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the logits are of.

    Attributes:
        pieces: The text as token ids, window by window.
        skipped: Tokens at the beginning of each piece that are not predicted.
        vocabulary: Logits per predicted token.
    """

    pieces: Pieces
    skipped: int
    vocabulary: int
    dtype: str

    @property
    def rows(self) -> int:
        """Predicted tokens of all pieces."""
        return sum(len(piece) - self.skipped for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of all logits."""
        return self.rows * self.vocabulary * int(DTYPES[self.dtype].itemsize)


class Writer:
    """Writes the logits of one piece after the other."""

    def __init__(self, file: IO[bytes], folder: Path, pieces: Pieces, skipped: int) -> None:
        self._file, self._folder = file, folder
        self._pieces, self._skipped = pieces, skipped
        self._begun = False

    def add(self, logits: Any) -> None:
        """Write what was said of the next piece; of shape [tokens, vocabulary].

        Raises:
            StorageError: if there is no room for all of them.
        """
        if not self._begun:
            self._begin(logits)
        # Of bfloat16 numpy knows nothing.
        self._file.write(logits.contiguous().cpu().view(torch.uint8).numpy().data)

    def _begin(self, logits: Any) -> None:
        dtype = str(logits.dtype).removeprefix("torch.")
        header = Header(pieces=self._pieces, skipped=self._skipped, vocabulary=logits.shape[-1], dtype=dtype)
        _require_room(self._folder, header.nbytes)
        written = msgspec.json.encode(header)
        self._file.write(MAGIC + len(written).to_bytes(LENGTH, "little") + written)
        self._begun = True


@contextmanager
def writing(path: Path, pieces: Pieces, skipped: int) -> Iterator[Writer]:
    """Give what writes the logits of these pieces; the file, readable by its owner alone, appears when it is complete.

    Raises:
        StorageError: if the disk refuses.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            yield Writer(file, path.parent, pieces, skipped)
        partial.rename(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"Cannot write {path}", reason, "Free some space or choose another folder") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


class Reader:
    """Reads the logits of one piece after the other."""

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self.header = header
        self._file = file
        self._next = 0

    def read(self, device: Any) -> Any:
        """Return the logits of the next piece, of shape [tokens, vocabulary]."""
        header = self.header
        rows = len(header.pieces[self._next]) - header.skipped
        self._next += 1
        dtype = DTYPES[header.dtype]
        data = bytearray(self._file.read(rows * header.vocabulary * dtype.itemsize))
        return torch.frombuffer(data, dtype=dtype).view(rows, header.vocabulary).to(device)


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open the logits of a reference.

    Raises:
        JobError: if the file cannot be read, or is not whole.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise JobError("The reference's logits cannot be read", f"{path}: {error.strerror}") from error
    with file:
        yield Reader(file, _header(file, path))


def _header(file: IO[bytes], path: Path) -> Header:
    try:
        magic, length = file.read(len(MAGIC)), int.from_bytes(file.read(LENGTH), "little")
        size = os.fstat(file.fileno()).st_size
        if magic != MAGIC or length > size:
            raise _damaged(path)
        header = msgspec.json.decode(file.read(length), type=Header)
        if header.dtype not in DTYPES or size != file.tell() + header.nbytes:
            raise _damaged(path)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise _damaged(path) from error
    return header


def _damaged(path: Path) -> JobError:
    detail = f"{path} is no such file, or not whole"
    return JobError("The reference's logits cannot be read", detail, "Measure the reference again")


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise StorageError(
            "The disk has no room for the reference's logits",
            f"They take {format_bytes(needed)}, and {format_bytes(free)} are free in {folder}",
            "Free some space, or read fewer tokens",
            code="disk-full",
        )
