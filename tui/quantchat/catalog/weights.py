"""Which files hold the weights, whether they are all there, and how large the model is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from quantchat.catalog.files import Folder, JsonObject, parse_json
from quantchat.catalog.groups import Group
from quantchat.catalog.problems import Defect, defect, problem
from quantchat.catalog.recognition import Recognition
from quantchat.catalog.safetensors import DTYPE_BITS, FLOATS, HeaderText, TensorInfo, parse_header, read_header
from quantchat.catalog.triage import SHOWN_FILES, judge_links, listed
from quantchat.domain.models import Problem

WEIGHTS = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors$")
_NOT_WEIGHTS = re.compile(r"^(training_args|optimizer|scheduler|scaler|rng_state|adapter_model|tokenizer)")


class WeightFiles(msgspec.Struct, frozen=True):
    """The files that hold the weights, unparsed.

    Attributes:
        headers: Of each that can be read.
        indexed: The tensors that an index promises.
        whole: All files are there.
    """

    headers: tuple[HeaderText, ...] = ()
    indexed: frozenset[str] = frozenset()
    whole: bool = False


class Weights(msgspec.Struct, frozen=True):
    """The weights that are there.

    Attributes:
        weight_bytes: Sum of the tensors.
        tensors: All of them, if the files are whole.
        written_by: The framework that wrote the files, as they say.
    """

    weight_bytes: int = 0
    tensors: tuple[TensorInfo, ...] = ()
    written_by: str = ""
    problems: tuple[Problem, ...] = ()


def find_weights(folder: Folder) -> WeightFiles:
    """Find the weight files and read their headers; what is wrong goes to the folder's problems."""
    before = len(folder.problems)
    try:
        files, indexed = _choose(folder)
    except Defect as fault:
        folder.problems.append(fault.problem)
        return WeightFiles()
    headers = tuple(header for name in files if (header := _header(folder, name)) is not None)
    whole = not any(one.severity == "error" for one in folder.problems[before:])
    return WeightFiles(headers, indexed, whole)


def read_weights(files: WeightFiles) -> Weights:
    """Parse the headers, and hold them against the index."""
    headers, problems = [], []
    for text in files.headers:
        try:
            headers.append(parse_header(text))
        except Defect as fault:
            problems.append(fault.problem)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    sound = files.whole and not problems
    if sound and (lost := files.indexed - {tensor.name for tensor in tensors}):
        problems.append(problem("tensors-missing", count=len(lost), tensor=min(lost)))
        sound = False
    written_by = next((header.written_by for header in headers if header.written_by), "")
    size = sum(header.weight_bytes for header in headers)
    return Weights(size, tensors if sound else (), written_by, tuple(problems))


def weight_files(folder: Folder) -> list[str]:
    """Return the safetensors files that are no adapter."""
    return [name for name in folder.names(".safetensors") if not _NOT_WEIGHTS.match(name)]


def pickle_files(folder: Folder) -> list[str]:
    """Return the files that look like pickled weights."""
    return [name for name in folder.names(".bin", ".pt", ".pth") if not _NOT_WEIGHTS.match(name)]


def count_parameters(groups: Sequence[Group], recognition: Recognition) -> int | None:
    """Count weights before packing.

    A packed integer of b bits holds b / bits weights. GPTQ's `g_idx` has one entry per input, which is exact even where
    bits differ per module. None for formats whose packing the headers do not show.
    """
    definition, bits = recognition.format, recognition.spec.bits
    if not definition.counts or not groups:
        return None
    inputs = {one.pattern.removesuffix(".g_idx"): one.elements for one in groups if one.pattern.endswith(".g_idx")}
    total = 0
    for one in groups:
        if one.pattern.endswith(definition.beside):
            continue
        if definition.packed and one.pattern.endswith(definition.packed) and one.dtype not in FLOATS:
            rows = inputs.get(one.pattern.removesuffix(definition.packed))
            if rows and len(one.shape) == 2:
                total += len(one) * rows * one.shape[1]
            elif bits:
                total += len(one) * one.elements * DTYPE_BITS.get(one.dtype, 32) // bits
        else:
            total += len(one) * one.elements
    return total


def _header(folder: Folder, name: str) -> HeaderText | None:
    try:
        return read_header(folder.join(name))
    except Defect as fault:
        folder.problems.append(fault.problem)
        return None


def _choose(folder: Folder) -> tuple[Sequence[str], frozenset[str]]:
    """Return the files to read and the tensors that an index promises, in transformers' order of preference."""
    if WEIGHTS in folder:
        return [WEIGHTS], frozenset()
    indices = sorted(folder.names(INDEX_SUFFIX), key=lambda name: (name != "model" + INDEX_SUFFIX, name))
    if indices:
        return _indexed(folder, indices[0])
    files = weight_files(folder)
    if not files:
        raise _no_weights(folder)
    shards = [match for name in files if (match := _SHARD.match(name))]
    if shards:
        raise _unindexed(shards)
    if len(files) > 1:
        raise defect("weights-ambiguous", files=listed(files))
    return files, frozenset()


def _indexed(folder: Folder, index: str) -> tuple[Sequence[str], frozenset[str]]:
    files, names = _read_index(folder.text(index) or b"", index)
    missing = [name for name in files if name not in folder]
    if missing:
        words = problem("shards-missing", missing=len(missing), total=len(files), files=listed(missing))
        folder.problems += judge_links(folder, missing) or [words]
    if extra := [name for name in folder.names(".safetensors") if _SHARD.match(name) and name not in files]:
        folder.problems.append(problem("shards-extra", count=len(extra), files=listed(extra)))
    return [name for name in files if name in folder], names


@lru_cache(maxsize=1)
def _read_index(text: bytes, index: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the files and tensors that an index names; models of one kind, side by side, have the very same."""
    placed = _weight_map(parse_json(text, index), index)
    return tuple(sorted(set(placed.values()))), frozenset(placed)


def _weight_map(content: JsonObject, index: str) -> dict[str, str]:
    placed = content.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise defect("index-invalid", file=index, why="it has no weight_map")
    for name in {name if isinstance(name, str) else None for name in placed.values()}:
        # An index is foreign data: a file name with a slash would read outside the folder.
        if name is None or "/" in name or "\0" in name or not name.endswith(".safetensors"):
            raise defect("index-invalid", file=index, why=f"{name!r} is not a name of a weight file")
    return placed


def _unindexed(shards: list[re.Match[str]]) -> Defect:
    first = shards[0]
    total, stem = int(first["total"]), first["stem"]
    present = {int(shard["number"]) for shard in shards if shard["stem"] == stem}
    missing = [number for number in range(1, total + 1) if number not in present]
    if missing:
        names = [f"{stem}-{number:05d}-of-{total:05d}.safetensors" for number in missing[: SHOWN_FILES + 1]]
        return defect("shards-missing", missing=len(missing), total=total, files=listed(names))
    return defect("index-missing", file=stem + INDEX_SUFFIX)


def _no_weights(folder: Folder) -> Defect:
    if pickles := pickle_files(folder):
        return defect("pickle-only", file=pickles[0])
    if folder.names(".gguf"):
        return defect("gguf-only")
    broken = [name for name in folder.entries if name.endswith(".safetensors") and name not in folder]
    if links := judge_links(folder, broken):
        return Defect(links[0])
    if broken:
        return defect("shards-missing", missing=len(broken), total=len(broken), files=listed(broken))
    return defect("weights-missing")
