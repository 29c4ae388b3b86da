"""What a quantization starts from: a model here, one on the hub, and the base of an adapter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quantchat.catalog.files import Folder
from quantchat.catalog.problems import Defect
from quantchat.catalog.reader import read_model
from quantchat.catalog.scan import find_model
from quantchat.domain.models import ModelInfo, Problem
from quantchat.domain.text import shortened
from quantchat.errors import UsageError
from quantchat.services.pull.names import Wanted, looks_like_repository, parse_name
from quantchat.services.quantizing.plan import Plan
from quantchat.services.servers import require_here

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
PICKLED = f"Choose the folder of a LoRA adapter with {ADAPTER_WEIGHTS}"


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's folder.

    Attributes:
        base: What it says that it was made for: a name on the hub, or a path on the machine where it was made.
        method: Its `peft_type`, such as `LORA`.
        problem: Why it cannot be merged.
    """

    path: str
    base: str = ""
    method: str = ""
    problem: Problem | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan's source turns out to be.

    Attributes:
        model: The model that is quantized; None where an adapter's base is not on this machine.
        adapter: What is merged into it first.
        wanted: The repository of the base, where it has yet to be fetched.
    """

    model: ModelInfo | None = None
    adapter: Adapter | None = None
    wanted: Wanted | None = None


def find_source(name: str, models: Sequence[ModelInfo]) -> ModelInfo | Wanted:
    """Find what a person names: a path, a model of this machine, or a repository that is not here yet.

    Raises:
        ModelError: if it is none of these.
        UsageError: if it is no name of a repository.
    """
    if os.path.exists(os.path.expanduser(name)) or name.startswith(("/", ".", "~")) or not looks_like_repository(name):
        return _here(find_model(name, models))
    wanted = parse_name(name)
    # A part of a name is not enough here: a quantized copy of what is wanted has it in its own.
    known = _named(wanted.repository, [model for model in models if not model.server])
    return known if known is not None and wanted.revision == "main" else wanted


def _here(model: ModelInfo) -> ModelInfo:
    require_here(model, "be quantized", "Quantize the folder that it was made from, on the machine that has it")
    return model


def find_subject(plan: Plan, models: Sequence[ModelInfo] = ()) -> Subject:
    """Read a plan's source, and look for the base of an adapter among the models of this machine."""
    model = _known(plan.source, models) or read_model(Path(plan.source))
    if model.kind != "adapter":
        return Subject(model=model, adapter=read_adapter(plan.adapter) if plan.adapter else None)
    adapter = read_adapter(model.path)
    base = find_base(adapter, models)
    if isinstance(base, ModelInfo):
        return Subject(model=base, adapter=adapter)
    return Subject(adapter=adapter, wanted=base)


def read_adapter(path: str) -> Adapter:
    """Describe an adapter's folder; a bad one is described by its problem and never raises."""
    try:
        folder = Folder(Path(os.path.abspath(os.path.expanduser(path))))
    except Defect as defect:
        return Adapter(path=path, problem=defect.problem)
    config = folder.json(ADAPTER_CONFIG)
    if config is None:
        missing = _problem(f"there is no {ADAPTER_CONFIG} in its folder")
        return Adapter(path=str(folder.path), problem=folder.problems[0] if folder.problems else missing)
    method, base = str(config.get("peft_type") or ""), config.get("base_model_name_or_path")
    return Adapter(
        path=str(folder.path),
        base=base if isinstance(base, str) else "",
        method=method,
        problem=_fault(folder, method),
    )


def _fault(folder: Folder, method: str) -> Problem | None:
    if method.upper() != "LORA":
        return _problem(f"it is {shortened(method, 40) or 'of a kind that it does not name'}, not LoRA")
    if ADAPTER_WEIGHTS not in folder:
        pickled = ADAPTER_PICKLE in folder
        return _problem(f"its weights are {'a pickle, which may hold a program' if pickled else 'missing'}", PICKLED)
    return None


def _problem(why: str, remedy: str = "Choose the folder of a LoRA adapter") -> Problem:
    cause = f"The adapter cannot be merged: {why}"
    return Problem(code="adapter", severity="error", cause=cause, remedy=remedy)


def find_base(adapter: Adapter, models: Sequence[ModelInfo]) -> ModelInfo | Wanted | None:
    """Find the model that an adapter was made for: here, by its whole name or its last part, or on the hub."""
    if not adapter.base:
        return None
    if os.path.isdir(adapter.base):
        return _known(adapter.base, models) or read_model(Path(adapter.base))
    whole = [model for model in models if _is_plain(model)]
    known = _named(adapter.base, whole) or _named(adapter.base.rstrip("/").rpartition("/")[2], whole)
    if known is not None:
        return known
    return _repository(adapter.base)


def _repository(name: str) -> Wanted | None:
    """A name on the hub; None for a path on the machine where the adapter was made."""
    if not looks_like_repository(name) or name.startswith(("/", ".", "~")):
        return None
    try:
        return parse_name(name)
    except UsageError:
        return None


def _is_plain(model: ModelInfo) -> bool:
    return model.quant.method == "none" and model.kind != "adapter" and model.container == "safetensors"


def _named(name: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    return next((model for model in models if model.name.casefold() == name.casefold()), None)


def _known(path: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    """A scanned model knows its name, such as that of a hub's snapshot, which its path does not tell."""
    wanted = os.path.realpath(os.path.expanduser(path))
    return next((model for model in models if os.path.realpath(model.path) == wanted), None)
