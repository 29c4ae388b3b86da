"""The words for everything that can be wrong with a model folder, in one table."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantchat.domain.models import Problem
from quantchat.domain.text import shortened

SHOWN_LENGTH = 160


def clean(text: object, limit: int = SHOWN_LENGTH) -> str:
    """Make what a foreign file holds fit to be shown in one line."""
    return shortened(str(text), limit)


class Defect(Exception):
    """A problem on its way from a reader to the list of the model; never leaves the catalog."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.cause)
        self.problem = problem


class _Words(msgspec.Struct, frozen=True):
    cause: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


_FETCH_AGAIN = "Download it again."
_OTHER_VERSION = "Use a GPTQ or AWQ version of this model."

_TABLE = {
    "folder-unreadable": _Words("The folder cannot be read: {why}.", "Check the path and its permissions."),
    "path-not-utf8": _Words("The path is not valid UTF-8.", "Rename the folder or the file."),
    "file-unreadable": _Words("{file} cannot be read: {why}.", "Check the file and its permissions."),
    "link-loop": _Words("{file} is a link that leads back to itself.", "Delete the link and download the file again."),
    "link-broken": _Words("{file} is a link to a file that is gone.", _FETCH_AGAIN),
    "file-too-large": _Words("{file} is far larger than such a file should be ({size} bytes).", _FETCH_AGAIN),
    "not-json": _Words("{file} is not valid JSON: {why}.", _FETCH_AGAIN),
    "not-an-object": _Words("{file} holds no JSON object.", _FETCH_AGAIN),
    "lfs-pointer": _Words("{file} is a Git LFS pointer, not the file itself.", "Run `git lfs pull` in the folder."),
    "not-a-model": _Words("config.json describes no model, and there are no weights.", "Choose another folder."),
    "config-missing": _Words("config.json is missing.", "Copy it from the model's page, or download again."),
    "model-type-missing": _Words("config.json names no model_type.", "Copy config.json from the model's page."),
    "not-a-chat-model": _Words("{architecture} does not generate chat text.", "Choose a causal language model."),
    "embedding-model": _Words("{architecture} makes embeddings, not text.", "Choose a causal language model."),
    "vision-model": _Words(
        "{architecture} works on images; transformers does not load it for text alone.",
        "Choose a text model of the same family.",
    ),
    "draft-model": _Words("{architecture} only drafts for another model.", "Choose the model that it was made for."),
    "architecture-unknown": _Words(
        "The installed transformers has no chat model of the type {model_type}.", "Run: pip install -U transformers"
    ),
    "remote-code-needed": _Words(
        "Models of the type {model_type} are Python code of their own ({files}), which is not run.",
        "Choose a model of a type that transformers has.",
    ),
    "adapter": _Words("This is an adapter for {base}, not a whole model.", "Merge it into its base model first."),
    "quantization-invalid": _Words(
        "{file} has a quantization setting that makes no sense: {why}.", "Correct it, or download the file again."
    ),
    "quantization-unknown": _Words("Its quantization method `{method}` is not known here.", _OTHER_VERSION),
    "quantization-config-missing": _Words(
        "The weights are packed ({tensor}), but no config says how.",
        "Copy config.json or quantize_config.json from the model's page.",
    ),
    "format-cannot-run": _Words("{format} cannot run here: {why}.", _OTHER_VERSION),
    "format-cannot-run-so": _Words("{format} cannot run here as it is: {why}.", "{remedy}."),
    "package-missing": _Words("{format} needs the package {package}, which is not installed.", "Run: {install}"),
    "download-unfinished": _Words(
        "A download was not finished: {files}.", "Resume it with the program that began it, or download again."
    ),
    "being-copied": _Words(
        "The model is still being copied: {file} changed a moment ago.", "Wait until the copy is complete."
    ),
    "weights-missing": _Words("The folder holds no weights.", "Download the model's *.safetensors files."),
    "weights-ambiguous": _Words(
        "Several weight files and no index: {files}.", "Keep one, and name it model.safetensors."
    ),
    "gguf-only": _Words(
        "The folder has no weights but GGUF files, each of which is a model of its own.",
        "Choose one of the .gguf files; to unpack one into a folder: quantchat quantize.",
    ),
    "pickle-only": _Words(
        "The weights are pickles ({file}), which can run code when they are read, so they are not loaded.",
        "Get a safetensors version of the model.",
    ),
    "index-missing": _Words("The weights are sharded, but {file} is missing.", "Download the index file."),
    "index-invalid": _Words("{file} is damaged: {why}.", "Download the index file again."),
    "shards-missing": _Words(
        "{missing} of {total} weight files missing: {files}.", "Resume the download of the model."
    ),
    "shards-extra": _Words(
        "Weight files that the index does not name are not read: {files}.",
        "Delete them if they are left from another version.",
        "warning",
    ),
    "shape-contradicted": _Words(
        "config.json says {key} is {said}, but {tensor} has {found}.",
        "Take config.json and the weights from the same version of the model.",
    ),
    "layers-missing": _Words(
        "config.json says the model has {said} layers, but the weights hold {found}.", "Download the missing weights."
    ),
    "layers-extra": _Words(
        "config.json says the model has {said} layers, but the weights hold {found}; the rest is not used.",
        "Take config.json from the same version of the model.",
        "warning",
    ),
    "packing-contradicted": _Words(
        "The config says {said}, but {tensor} is packed otherwise: {found}.",
        "Take the quantization config from the same version of the model.",
    ),
    "tensors-missing": _Words("Tensors of the index are in no file: {count}, such as {tensor}.", _FETCH_AGAIN),
    "weights-truncated": _Words(
        "{file} is cut off: {expected} bytes expected, {actual} found.", "Resume the download of this file."
    ),
    "weights-damaged": _Words("{file} is not a sound safetensors file: {why}.", "Download this file again."),
    "gguf-damaged": _Words("{file} is not a sound GGUF file: {why}.", "Download this file again."),
    "gguf-vocabulary-only": _Words("{file} holds a vocabulary and no weights.", "Download the model's own GGUF file."),
    "gguf-projector": _Words(
        "{file} reads images for another model; it is no model of its own.", "Choose the model beside it."
    ),
    "gguf-type-unknown": _Words("{file} has tensors of a type that is not known here: {type}.", "Update quantchat."),
    "tokenizer-missing": _Words("The tokenizer is missing.", "Download tokenizer.json from the model's page."),
    "chat-template-missing": _Words(
        "The model has no chat template.", "A plain one is used; an instruct version answers better.", "warning"
    ),
    "remote-code": _Words(
        "The model brings Python code of its own: {files}.",
        "Nothing to do: transformers has this type itself, and the code is not run.",
        "warning",
    ),
}


def problem(code: str, **facts: object) -> Problem:
    """Make a problem of the table; facts may come from foreign files and are cleaned."""
    words = _TABLE[code]
    shown = {name: clean(fact).rstrip(".") for name, fact in facts.items()}
    return Problem(
        code=code,
        severity=words.severity,
        cause=words.cause.format_map(shown),
        remedy=words.remedy.format_map(shown),
    )


def defect(code: str, **facts: object) -> Defect:
    """Make a raise-able problem of the table."""
    return Defect(problem(code, **facts))


def os_reason(error: OSError) -> str:
    """Say why the system refused, without the path."""
    return (error.strerror or type(error).__name__).lower()
