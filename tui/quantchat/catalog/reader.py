"""Read one model folder without loading it: what it is, how large, and everything that is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quantchat.catalog.files import Folder, JsonObject
from quantchat.catalog.formats import CONFIG_FILES
from quantchat.catalog.gguf_model import SUFFIX, read_gguf_model
from quantchat.catalog.kinds import Named, judge_kind, kind_of
from quantchat.catalog.problems import Defect, clean, problem
from quantchat.catalog.recognition import Recognition, recognise
from quantchat.catalog.studies import Study, study
from quantchat.catalog.triage import code_files, explain_transfer, listed
from quantchat.catalog.weights import find_weights, pickle_files, weight_files
from quantchat.domain.models import Container, ModelInfo, Problem, Verdict

MARKERS = (*CONFIG_FILES, "adapter_config.json")
"""A folder with one of these is a model."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "spiece.model", "vocab.json", "vocab.txt")
_TOKENIZER_SUFFIXES = (".tiktoken", "tiktoken.model", "bpe.model")


def read_model(
    path: Path, *, root: str = "", name: str | None = None, revision: str | None = None, listed: Folder | None = None
) -> ModelInfo:
    """Describe a model folder or a GGUF file; a bad one is described by its problems and never raises.

    Args:
        path: The folder, or the file; of a split GGUF model the first.
        root: The scan root under which it was found.
        name: What to call it; the name of the folder or the file if None.
        revision: Commit of a hub snapshot.
        listed: The folder, if it was listed already.
    """
    location = Path(os.path.abspath(path))
    shown = os.fsencode(location).decode("utf-8", "backslashreplace")
    found = ModelInfo(
        path=shown,
        name=clean(name or location.name) or "unnamed",
        root=os.fsencode(root).decode("utf-8", "backslashreplace"),
        revision=clean(revision) if revision else None,
    )
    if location.name.endswith(SUFFIX) and not os.path.isdir(location):
        found = msgspec.structs.replace(found, name=found.name.removesuffix(SUFFIX), container="gguf")
        if shown != str(location):
            return msgspec.structs.replace(found, problems=(problem("path-not-utf8"),))
        return read_gguf_model(location, found)
    try:
        folder = listed or Folder(location)
    except Defect as fault:
        return msgspec.structs.replace(found, problems=(fault.problem,))
    if shown != str(location):
        folder.problems.append(problem("path-not-utf8"))
    return _describe(folder, found)


def _describe(folder: Folder, found: ModelInfo) -> ModelInfo:
    if "adapter_config.json" in folder.entries and not weight_files(folder) and not pickle_files(folder):
        return _describe_adapter(folder, found)
    configs = {name: folder.json(name) for name in CONFIG_FILES}
    config = configs["config.json"] or {}
    recognition = recognise(configs)
    named = Named(_architecture(config) or "", _text(config, "model_type") or "", code_files(folder, config))
    kind = kind_of(folder, config, named)
    folder.problems += _judge_config(folder, config)
    tensors = study(find_weights(folder), config, recognition)
    recognition = tensors.recognition
    folder.problems += tensors.problems
    unfit = judge_kind(kind, named) or recognition.problem
    folder.problems += [unfit] if unfit else []
    has_template = _has_chat_template(folder)
    folder.problems += _judge_words(folder, has_template=has_template) if kind == "chat" else []
    folder.problems += [problem("remote-code", files=listed(named.code))] if named.code and unfit is None else []
    problems = explain_transfer(folder, folder.problems)
    if _is_foreign(folder, config):
        problems = [problem("not-a-model")]
    return msgspec.structs.replace(
        found,
        architecture=named.architecture or None,
        model_type=named.model_type or None,
        quant=recognition.spec,
        shape=tensors.shape,
        parameters=tensors.parameters,
        weight_bytes=tensors.weight_bytes,
        disk_bytes=folder.disk_bytes(),
        context_window=tensors.context_window,
        has_chat_template=has_template,
        remote_code=bool(named.code),
        files=named.code,
        kind=kind,
        container=_container(folder, tensors),
        verdict=_verdict(recognition, unfit),
        attention=tensors.attention,
        weights=tensors.sizes,
        tied=tensors.tied,
        modified=folder.modified(),
        problems=tuple(dict.fromkeys(problems)),
    )


def _verdict(recognition: Recognition, unfit: Problem | None) -> Verdict:
    if unfit is None or unfit is recognition.problem:
        return recognition.verdict
    return Verdict(state="cannot", reason=unfit.cause)


def _container(folder: Folder, tensors: Study) -> Container:
    if tensors.recognition.spec.method == "mlx" or tensors.written_by == "mlx":
        return "mlx"
    if weight_files(folder):
        return "safetensors"
    if pickle_files(folder):
        return "pickle"
    return "gguf" if folder.names(".gguf") else "none"


def _describe_adapter(folder: Folder, found: ModelInfo) -> ModelInfo:
    adapter = folder.json("adapter_config.json") or {}
    base = adapter.get("base_model_name_or_path")
    fault = problem("adapter", base=base if base and isinstance(base, str) else "a model it does not name")
    return msgspec.structs.replace(
        found,
        disk_bytes=folder.disk_bytes(),
        kind="adapter",
        container="safetensors" if folder.names(".safetensors") else "pickle" if folder.names(".bin") else "none",
        verdict=Verdict(state="cannot", reason=fault.cause),
        modified=folder.modified(),
        problems=(*folder.problems, fault),
    )


def _judge_config(folder: Folder, config: JsonObject) -> list[Problem]:
    if "config.json" not in folder.entries:
        return [problem("config-missing")]
    if folder.json("config.json") is None:
        return []
    return [] if _text(config, "model_type") else [problem("model-type-missing")]


def _judge_words(folder: Folder, *, has_template: bool) -> list[Problem]:
    return [*_judge_tokenizer(folder), *([] if has_template else [problem("chat-template-missing")])]


def _judge_tokenizer(folder: Folder) -> list[Problem]:
    found = [name for name in _TOKENIZER_FILES if name in folder] + folder.names(*_TOKENIZER_SUFFIXES)
    if not found:
        return [problem("tokenizer-missing")]
    return [problem("lfs-pointer", file=name) for name in found if folder.is_lfs_pointer(name)]


def _has_chat_template(folder: Folder) -> bool:
    if any(folder.entries[name].size for name in ("chat_template.jinja", "chat_template.json") if name in folder):
        return True
    return bool((folder.json("tokenizer_config.json") or {}).get("chat_template"))


def _is_foreign(folder: Folder, config: JsonObject) -> bool:
    """Many programs call their settings `config.json`."""
    others = [name for name in MARKERS if name != "config.json" and name in folder.entries]
    named = any(key in config for key in ("model_type", "architectures", "quantization_config"))
    weights = folder.names(".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
    return bool(folder.json("config.json") is not None and not (others or named or weights))


def _architecture(config: JsonObject) -> str | None:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return clean(first) if isinstance(first, str) and first else None


def _text(config: JsonObject, key: str) -> str | None:
    value = config.get(key)
    return clean(value) if isinstance(value, str) and value else None
