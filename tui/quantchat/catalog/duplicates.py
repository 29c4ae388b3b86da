"""Show once what lies on the disk once: links, and files that several folders share as in the hub cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import msgspec

from quantchat.catalog.candidates import shown
from quantchat.catalog.walk import Known, with_root
from quantchat.domain.models import ModelInfo


def merged(known: Iterable[Known], aliases: Mapping[bytes, Sequence[bytes]]) -> list[ModelInfo]:
    """Return each model once, in the order in which they were found, with the other ways to it as `copies`.

    Two are the same if their weights are the same files on disk and their configs say the same.

    Args:
        known: Folders that were read.
        aliases: Other paths that lead to a folder, by links.
    """
    found: dict[object, ModelInfo] = {}
    copies: dict[object, list[str]] = {}
    for folder in sorted(known, key=lambda folder: (folder.superseded, folder.order)):
        for model, weights in zip(folder.entry.models, folder.entry.weights, strict=True):
            key = _key(model, weights)
            if key in found:
                copies[key].append(model.path)
            elif folder.superseded:
                continue
            else:
                found[key], copies[key] = with_root(model, folder.root), []
            copies[key] += [_below(path, model, folder) for path in aliases.get(folder.entry.path, ())]
    return [_with_copies(model, copies[key]) for key, model in found.items()]


def _key(model: ModelInfo, weights: bytes) -> object:
    if not weights:
        return model.path
    return weights, model.architecture, model.quant.label(), model.shape, model.context_window, model.has_chat_template


def _below(alias: bytes, model: ModelInfo, folder: Known) -> str:
    """Return the path of a model by another path of its folder: of several in a folder each is a file."""
    return shown(alias) + model.path.removeprefix(shown(folder.entry.path))


def without_shells(models: Sequence[ModelInfo]) -> Sequence[ModelInfo]:
    """Leave out folders with configs alone that have models further down: these are what the configs are about."""
    shells = {model.path for model in models if model.container == "none"}
    if not shells:
        return models
    above = {str(folder) for model in models for folder in PurePath(model.path).parents}
    return [model for model in models if model.path not in shells or model.path not in above]


def _with_copies(model: ModelInfo, copies: Iterable[str]) -> ModelInfo:
    others = tuple(dict.fromkeys(os.path.normpath(copy) for copy in copies if copy != model.path))
    return msgspec.structs.replace(model, copies=others) if others else model
