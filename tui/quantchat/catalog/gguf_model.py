"""A GGUF file as a model: which files are one, and what their headers say."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from quantchat.catalog.attention import read_attention
from quantchat.catalog.files import Folder
from quantchat.catalog.formats import BY_NAME
from quantchat.catalog.gguf import FILE_TYPES, PLAIN, TYPES, GgufHeader, GgufTensor, read_gguf
from quantchat.catalog.gguf_sizes import weigh
from quantchat.catalog.problems import Defect, clean, problem
from quantchat.catalog.shape import read_context_window, read_shape
from quantchat.catalog.triage import explain_transfer, listed
from quantchat.catalog.verdicts import complaint, judge
from quantchat.domain.models import Kind, ModelInfo, Problem, QuantSpec, Verdict

SUFFIX = ".gguf"
PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf$")
"""A file of a split model."""
_MOST_PARTS = 1000
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
_EMBEDDINGS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "gemma-embedding")
_ENCODERS = ("t5encoder", "t5")
_KINDS: dict[str, Kind] = {"adapter": "adapter", "mmproj": "vision", "imatrix": "other"}


def gguf_sets(names: Iterable[str]) -> list[str]:
    """Return the file that stands for each model: every unsplit file, and the first there is of each split one."""
    first: dict[str, str] = {}
    for name in sorted(name for name in names if name.endswith(SUFFIX)):
        part = PART.match(name)
        first.setdefault(f"{part['stem']}-of-{part['total']}" if part else name, name)
    return sorted(first.values())


def read_gguf_model(path: Path, found: ModelInfo) -> ModelInfo:
    """Describe a GGUF model; a bad one is described by its problems and never raises.

    Args:
        path: The file, of a split model the first.
        found: What is known already: path, root, revision.
    """
    try:
        folder = Folder(path.parent)
    except Defect as fault:
        return msgspec.structs.replace(found, container="gguf", problems=(fault.problem,))
    parts, problems = _parts(folder, path.name)
    headers = []
    for name in parts:
        try:
            headers.append(read_gguf(folder.path / name))
        except Defect as fault:
            problems.append(fault.problem)
    model = _describe(path.name, headers, msgspec.structs.replace(found, container="gguf"))
    entries = [folder.entries[name] for name in parts]
    return msgspec.structs.replace(
        model,
        disk_bytes=sum(entry.size for entry in entries),
        modified=max((entry.modified for entry in entries), default=0.0),
        problems=tuple(explain_transfer(folder, [*problems, *model.problems])),
    )


def _parts(folder: Folder, name: str) -> tuple[list[str], list[Problem]]:
    """Return the files of a model that are there, and what is wrong with the set."""
    part = PART.match(name)
    total = int(part["total"]) if part else 0
    if part is None or not 0 < total <= _MOST_PARTS:
        return ([name], []) if name in folder else ([], [problem("file-unreadable", file=name, why="no such file")])
    names = [f"{part['stem']}-{number:05d}-of-{part['total']}{SUFFIX}" for number in range(1, total + 1)]
    missing = [one for one in names if one not in folder]
    lost = [problem("shards-missing", missing=len(missing), total=total, files=listed(missing))] if missing else []
    return [one for one in names if one in folder], lost


def _describe(name: str, headers: Sequence[GgufHeader], found: ModelInfo) -> ModelInfo:
    if not headers:
        return _judged(found, QuantSpec(method="gguf", source=name), [])
    head = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    config, kind = _config(head), _kind(name, head)
    found = msgspec.structs.replace(
        found,
        name=found.name or clean(name.removesuffix(SUFFIX)),
        model_type=clean(head.text("general.architecture"), 64) or None,
        architecture=clean(head.text("general.architecture"), 64) or None,
        kind=kind,
        shape=read_shape(config),
        parameters=sum(tensor.elements for tensor in tensors) or None,
        weight_bytes=sum(header.weight_bytes for header in headers),
        context_window=read_context_window(config),
        has_chat_template=bool(head.text("tokenizer.chat_template")),
        attention=read_attention(config),
        weights=weigh(tensors),
        tied=bool(tensors) and not any(tensor.name == "output.weight" for tensor in tensors),
    )
    return _judged(found, _quantization(name, head, tensors), _judge(name, kind, tensors))


def _judged(found: ModelInfo, spec: QuantSpec, problems: list[Problem]) -> ModelInfo:
    definition = BY_NAME["gguf"]
    verdict = judge(definition, spec)
    if problems:
        return msgspec.structs.replace(
            found, quant=spec, verdict=Verdict(state="cannot", reason=problems[0].cause), problems=tuple(problems)
        )
    unfit = complaint(definition, spec, verdict)
    return msgspec.structs.replace(found, quant=spec, verdict=verdict, problems=(unfit,) if unfit else ())


def _judge(name: str, kind: Kind, tensors: Sequence[GgufTensor]) -> list[Problem]:
    if kind == "vision":
        return [problem("gguf-projector", file=name)]
    if kind == "adapter":
        return [problem("adapter", base="a model it does not name")]
    if kind == "embedding":
        return [problem("embedding-model", architecture=name)]
    if kind != "chat":
        return [problem("not-a-chat-model", architecture=name)]
    if not tensors:
        return [problem("gguf-vocabulary-only", file=name)]
    unknown = next((tensor.type for tensor in tensors if tensor.type not in TYPES), None)
    return [] if unknown is None else [problem("gguf-type-unknown", file=name, type=unknown)]


def _kind(name: str, head: GgufHeader) -> Kind:
    architecture, stated = head.text("general.architecture"), head.text("general.type")
    if stated in _KINDS:
        return _KINDS[stated]
    if architecture == "clip" or name.startswith("mmproj"):
        return "vision"
    if architecture in _EMBEDDINGS or head.number(f"{architecture}.pooling_type"):
        return "embedding"
    return "encoder" if architecture in _ENCODERS else "chat"


def _config(head: GgufHeader) -> dict[str, object]:
    """Write what the header says of the network in the words of a `config.json`."""
    architecture = head.text("general.architecture")
    config: dict[str, object] = {"model_type": architecture}
    for key, name in _KEYS.items():
        if value := head.number(f"{architecture}.{key}"):
            config[name] = value
    config.setdefault("vocab_size", head.lengths.get("tokenizer.ggml.tokens", 0))
    return config


def _quantization(name: str, head: GgufHeader, tensors: Sequence[GgufTensor]) -> QuantSpec:
    """Name the recipe as the file does, else by the type that most weights have."""
    weights: Counter[int] = Counter()
    for tensor in tensors:
        if tensor.type in TYPES and len(tensor.shape) > 1:
            weights[tensor.type] += tensor.elements
    common = TYPES[weights.most_common(1)[0][0]] if weights else None
    recipe = FILE_TYPES.get(head.number("general.file_type")) if "general.file_type" in head.values else None
    if recipe is None or (common is not None and recipe == "F32" and common.name not in PLAIN):
        recipe = common.name if common else None
    return QuantSpec(
        method="gguf",
        bits=int(common.bits) if common else None,
        checkpoint_format=recipe.lower() if recipe else None,
        source=os.path.basename(name),
    )
