"""Read one model folder without loading it: what it is, how large, and everything that is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quantchat.catalog.files import Folder, JsonObject
from quantchat.catalog.formats import CONFIG_FILES
from quantchat.catalog.problems import Defect, clean, problem
from quantchat.catalog.recognition import recognise
from quantchat.catalog.shape import read_context_window, read_shape, text_config
from quantchat.catalog.weights import pickle_files, read_weights, weight_files
from quantchat.domain.models import ModelInfo, Problem

MARKERS = (*CONFIG_FILES, "adapter_config.json")
"""A folder with one of these is a model."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "spiece.model", "vocab.json", "vocab.txt")
_TOKENIZER_SUFFIXES = (".tiktoken", "tiktoken.model", "bpe.model")
_OTHER_TASKS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
    "ForImageClassification",
    "ForObjectDetection",
    "ForCTC",
    "ForTextToWaveform",
)


def read_model(path: Path, *, root: str = "", name: str | None = None, revision: str | None = None) -> ModelInfo:
    """Describe a model folder; a bad one is described by its problems and never raises.

    Args:
        path: The folder.
        root: The scan root under which it was found.
        name: What to call it; the folder's name if None.
        revision: Commit of a hub snapshot.
    """
    location = Path(os.path.abspath(path))
    shown = os.fsencode(location).decode("utf-8", "backslashreplace")
    found = ModelInfo(
        path=shown,
        name=clean(name or location.name) or "unnamed",
        root=os.fsencode(root).decode("utf-8", "backslashreplace"),
        revision=clean(revision) if revision else None,
    )
    try:
        folder = Folder(location)
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
    folder.problems += _judge_config(folder, config)
    folder.problems += [recognition.problem] if recognition.problem else []
    weights = read_weights(folder, recognition)
    has_template = _has_chat_template(folder)
    remote_code = _wants_remote_code(folder, config)
    folder.problems += _judge_tokenizer(folder)
    folder.problems += [] if has_template else [problem("chat-template-missing")]
    folder.problems += [problem("remote-code")] if remote_code else []
    if _is_foreign(folder, config):
        folder.problems[:] = [problem("not-a-model")]
    return msgspec.structs.replace(
        found,
        architecture=_architecture(config),
        model_type=_text(config, "model_type"),
        quant=recognition.spec,
        shape=read_shape(config),
        parameters=weights.parameters,
        weight_bytes=weights.weight_bytes,
        disk_bytes=folder.disk_bytes(),
        context_window=read_context_window(config),
        has_chat_template=has_template,
        remote_code=remote_code,
        problems=tuple(folder.problems),
    )


def _describe_adapter(folder: Folder, found: ModelInfo) -> ModelInfo:
    adapter = folder.json("adapter_config.json") or {}
    base = adapter.get("base_model_name_or_path")
    folder.problems.append(
        problem("adapter", base=base if base and isinstance(base, str) else "a model it does not name")
    )
    return msgspec.structs.replace(found, disk_bytes=folder.disk_bytes(), problems=tuple(folder.problems))


def _judge_config(folder: Folder, config: JsonObject) -> list[Problem]:
    if "config.json" not in folder.entries:
        return [problem("config-missing")]
    if folder.json("config.json") is None:
        return []
    if _text(config, "model_type") is None:
        return [problem("model-type-missing")]
    architecture = _architecture(config)
    if architecture and (architecture.endswith(_OTHER_TASKS) or config.get("is_encoder_decoder") is True):
        return [problem("not-a-chat-model", architecture=architecture)]
    return []


def _judge_tokenizer(folder: Folder) -> list[Problem]:
    found = [name for name in _TOKENIZER_FILES if name in folder] + folder.names(*_TOKENIZER_SUFFIXES)
    if not found:
        return [problem("tokenizer-missing")]
    return [problem("lfs-pointer", file=name) for name in found if folder.is_lfs_pointer(name)]


def _has_chat_template(folder: Folder) -> bool:
    if any(folder.entries[name].size for name in ("chat_template.jinja", "chat_template.json") if name in folder):
        return True
    return bool((folder.json("tokenizer_config.json") or {}).get("chat_template"))


def _wants_remote_code(folder: Folder, config: JsonObject) -> bool:
    tokenizer = folder.json("tokenizer_config.json") or {}
    return any(bool(part.get("auto_map")) for part in (config, text_config(config), tokenizer))


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
