"""What the headers of a model's weight files say: names, shapes and bytes. Reads no weights and imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from safetensors import SafetensorError, safe_open

from quantchat.errors import LoadError

STANDARD_FILE = "model.safetensors"
STANDARD_INDEX = "model.safetensors.index.json"
DAMAGED_REMEDY = "Copy or download the model again."
ELEMENT_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
}  # fmt: skip
"""All others take one byte."""


class Tensor(msgspec.Struct, frozen=True):
    """A tensor on disk."""

    shape: tuple[int, ...]
    nbytes: int


def has_standard_names(folder: Path) -> bool:
    """Whether transformers finds the weight files."""
    return (folder / STANDARD_FILE).is_file() or (folder / STANDARD_INDEX).is_file()


@contextmanager
def standard_names(folder: Path) -> Iterator[Path]:
    """Give a folder in which transformers and GPTQModel find the weights; it goes with the block if it is another one.

    Old programs named the only file, or the index of several, as they liked (`gptq_model-4bit-128g.safetensors`,
    `awq_model.safetensors`). Such a folder is given as one of links, in which that one has the standard name.

    Raises:
        OSError: if the links cannot be made.
    """
    indices, weights = sorted(folder.glob("*.safetensors.index.json")), weight_files(folder)
    if has_standard_names(folder) or not (indices or len(weights) == 1):
        yield folder
        return
    named = {indices[0].name: STANDARD_INDEX} if indices else {weights[0].name: STANDARD_FILE}
    with TemporaryDirectory(prefix="quantchat-names-") as scratch:
        linked = Path(scratch)
        for file in folder.iterdir():
            (linked / named.get(file.name, file.name)).symlink_to(file.resolve())
        yield linked


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that make up the model, whatever their names."""
    index = folder / STANDARD_INDEX
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({folder / shard for shard in shards})
    standard = folder / STANDARD_FILE
    return [standard] if standard.is_file() else sorted(folder.glob("*.safetensors"))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read what is said of all tensors; also proves that every file is there and whole.

    Raises:
        LoadError: if a file is missing, cut off or not safetensors, or there is none.
    """
    tensors: dict[str, Tensor] = {}
    files = weight_files(folder)
    if not files:
        raise LoadError("The model has no safetensors weights", f"There is none in {folder}.", DAMAGED_REMEDY)
    for file in files:
        try:
            tensors |= _read_file(file)
        except (SafetensorError, OSError) as error:
            raise LoadError(f"The weight file {file.name} is damaged or missing", str(error), DAMAGED_REMEDY) from error
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    found = {}
    with safe_open(str(file), framework="np") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            part = opened.get_slice(name)
            shape = tuple(part.get_shape())
            found[name] = Tensor(shape, math.prod(shape) * ELEMENT_BYTES.get(part.get_dtype(), 1))
    return found


def refuse(title: str, names: Iterable[str]) -> None:
    """Fail a load that left weights out, if it left out any.

    Raises:
        LoadError: with the first of their names.
    """
    found = sorted(names)
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise LoadError(title, f"{shown}. The model would answer with random text.", DAMAGED_REMEDY)
