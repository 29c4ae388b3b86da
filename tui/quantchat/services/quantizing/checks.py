"""What stands against a plan: in its source, its settings, its text and the place of its result."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Literal

from quantchat import paths
from quantchat.catalog.gguf_model import PART
from quantchat.catalog.quantizers import gguf_types, plain_type, quantizable_types
from quantchat.catalog.roots import hub_cache
from quantchat.catalog.triage import listed
from quantchat.domain.matrices import Matrix
from quantchat.domain.models import ModelInfo, Problem
from quantchat.domain.quantizing import SHORTEST_SAMPLE, CalibrationChoice, Recipe, refusals
from quantchat.domain.text import shortened
from quantchat.services.quantizing.sources import Subject
from quantchat.store.atomic import process_lives

_NUMBERED = re.compile(r"^.*?\.\d+\.|(?<=experts\.)\d+\.")
UNPACKED = ("none", "gguf")
UNQUANTIZABLE = "Choose another model"
OF_CHATS = frozenset({"package-missing", "format-cannot-run", "format-cannot-run-so", "chat-template-missing"})
"""Problems of a GGUF file as a model to chat with; unpacking it is something else."""
PEFT = "Run: pip install 'quantchat[lora]'"
FEW_BITS = 2
PLAIN_TYPES = ("f32", "f16", "bf16")
LONGEST_NAME = 255 - len(".partial-4194304") - 1
"""Bytes: file systems take 255, and while it is made the folder has a longer name."""


def fault(code: str, cause: str, remedy: str, severity: Literal["error", "warning"] = "error") -> Problem:
    """Make a problem."""
    return Problem(code=code, severity=severity, cause=cause, remedy=remedy)


def source_problems(subject: Subject) -> Iterator[Problem]:
    """Say what is wrong with what a quantization would start from."""
    if subject.adapter is not None and subject.adapter.problem is not None:
        yield subject.adapter.problem
    elif subject.adapter is not None and util.find_spec("peft") is None:
        yield fault("adapter-package", "Adapters are merged by the package peft, which is not installed", PEFT)
    if subject.model is None:
        yield _base_missing(subject)
    elif subject.model.container == "gguf":
        yield from _file_problems(subject.model)
    else:
        yield from _folder_problems(subject.model)


def _base_missing(subject: Subject) -> Problem:
    base = shortened(subject.adapter.base, 100) if subject.adapter is not None else ""
    if subject.wanted is None:
        cause = f"The model that the adapter was made for{f', {base},' if base else ''} is not on this machine"
        return fault("adapter-base", cause, "Choose that model, and this folder as its adapter")
    cause = f"The adapter was made for {base}, which is not on this machine"
    return fault("adapter-base", cause, f"Fetch it with: quantchat pull {subject.wanted}")


def _folder_problems(model: ModelInfo) -> Iterator[Problem]:
    if model.quant.method not in UNPACKED:
        cause = f"{model.name} is quantized already ({model.quant.label()})"
        yield fault("quantized", cause, "Start from the unquantized model that it was made of")
        return
    yield from model.problems
    if not model.errors and model.verdict.state == "cannot":
        yield fault("cannot-run", model.verdict.reason, UNQUANTIZABLE)
    yield from _type_problems(model.model_type or "")


def _type_problems(model_type: str) -> Iterator[Problem]:
    if model_type and quantizable_types() and model_type not in quantizable_types():
        cause = f"GPTQModel does not know models of the type {model_type}; it will look for their layers by itself"
        yield fault("type-unknown", cause, "If it fails: pip install -U gptqmodel", "warning")


def _file_problems(model: ModelInfo) -> Iterator[Problem]:
    yield from (problem for problem in model.problems if problem.code not in OF_CHATS)
    if PART.match(Path(model.path).name):
        remedy = "Join them with llama.cpp: llama-gguf-split --merge FIRST OUTPUT"
        yield fault("gguf-parts", "The GGUF model is split into several files, which cannot be unpacked", remedy)
    kind = model.architecture or ""
    if kind and gguf_types() and plain_type(kind) not in gguf_types():
        cause = f"transformers cannot unpack GGUF files of the architecture {kind}"
        yield fault("gguf-type", cause, "Start from the model's safetensors folder")
    packing = model.quant.checkpoint_format or ""
    if packing and packing not in PLAIN_TYPES:
        cause = f"The file's weights are rounded already ({packing.upper()}); quantizing loses a little more"
        yield fault("gguf-rounded", cause, "The model's safetensors folder gives a better result", "warning")


def recipe_problems(recipe: Recipe, found: Sequence[Matrix], *, tied: bool) -> Iterator[Problem]:
    """Say what of the settings does not go together, or not with the model's matrices."""
    for refusal in refusals(recipe, [matrix.sides for matrix in found]):
        yield fault(refusal.code, refusal.cause + _where(refusal.code, recipe, found), refusal.remedy)
    if recipe.lm_head and tied:
        cause = "The output head cannot be quantized: it is the embedding's own matrix"
        yield fault("lm-head", cause, "Leave the output head as it is")
    if recipe.bits <= FEW_BITS:
        cause = "With 2 bits per weight most models lose their language"
        yield fault("few-bits", cause, "Take 3 bits or more, or measure the quality afterwards", "warning")


def _where(code: str, recipe: Recipe, found: Sequence[Matrix]) -> str:
    """Name the matrices that a group size does not divide, those of the same place in the layers once."""
    size = recipe.group_size
    if code != "group-size" or size is None or size <= 0:
        return ""
    odd = dict.fromkeys(f"{_place(matrix.name)} {matrix.inputs:,}" for matrix in found if matrix.inputs % size)
    return f": {listed(odd)}" if odd else ""


def _place(name: str) -> str:
    """`self_attn.q_proj` of `model.layers.0.self_attn.q_proj.weight`."""
    return _NUMBERED.sub("", name).removesuffix(".weight")


def text_problems(choice: CalibrationChoice) -> Iterator[Problem]:
    """Say whether the calibration file can be read; what stands in it is judged while it is."""
    if choice.length < SHORTEST_SAMPLE:
        cause = f"Samples of {choice.length} tokens are too short to learn anything from"
        yield fault("calibration-length", cause, f"Choose {SHORTEST_SAMPLE} tokens or more, such as 512")
    if choice.path and (why := _unreadable(Path(choice.path).expanduser())):
        cause = f"The calibration file {shortened(choice.path, 100)} {why}"
        yield fault("calibration", cause, "Choose a JSONL or text file")


def _unreadable(path: Path) -> str:
    """Why a file cannot be read, in words that follow its name; empty if it can."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except (OSError, ValueError) as error:
        return f"cannot be found ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe or a device, and is to be read twice"
    if not status.st_size:
        return "is empty"
    return "" if os.access(path, os.R_OK) else "may not be read"


def output_problems(output: Path, source: str, roots: Sequence[Path] = ()) -> Iterator[Problem]:
    """Say what is wrong with the place of the result; `roots` are the folders that are scanned for models."""
    name = shortened(str(output), 160)
    real, cache = Path(os.path.realpath(output)), Path(os.path.realpath(hub_cache()))
    if why := _unnameable(output.name):
        yield fault("output-name", f"{name} cannot be made: its name {why}", "Choose another name")
    elif os.path.lexists(output):
        yield fault("output-exists", f"{name} exists already", "Choose another output folder, or delete that one first")
    elif real.is_relative_to(cache):
        remedy = "Choose a folder outside of it; what the hub's tools do not know there, they may delete"
        yield fault("output-in-cache", f"{name} lies in the hub's cache", remedy)
    elif real.is_relative_to(os.path.realpath(source)):
        yield fault("output-in-source", f"{name} lies in the folder of the source", "Choose another output folder")
    elif (maker := _being_made(output)) is not None:
        yield fault("output-busy", f"{name} is being made by process {maker}", "Wait for it, or choose another folder")
    else:
        yield from _place_problems(output)
    # Our own models' folder is always scanned, and made by the first of them.
    scanned = [Path(os.path.realpath(root)) for root in (*roots, paths.models_dir())]
    if roots and not any(real.is_relative_to(root) for root in scanned):
        remedy = f"Start with --models-dir {shortened(str(output.parent), 160)}, or leave out the output folder"
        yield fault("output-unseen", f"{name} is in none of the folders that are scanned for models", remedy, "warning")


def _unnameable(name: str) -> str:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"is longer than {LONGEST_NAME} bytes" if size > LONGEST_NAME else ""


def _place_problems(output: Path) -> Iterator[Problem]:
    """The folder is made below the first of its parents that is there."""
    parent = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not parent.is_dir():
        yield fault("output-place", f"{shortened(str(parent), 160)} is no folder", "Choose another output folder")
    elif not os.access(parent, os.W_OK | os.X_OK):
        cause = f"Nothing may be written into {shortened(str(parent), 160)}"
        yield fault("output-place", cause, "Choose another output folder")


def _being_made(output: Path) -> int | None:
    """Return the process that has a half-made folder of this name, as `staging` makes them."""
    marker = f".{output.name}.partial-"
    try:
        names = [name for name in os.listdir(output.parent) if name.startswith(marker)]
    except OSError:
        return None
    makers = (int(name.removeprefix(marker)) for name in names if name.removeprefix(marker).isdecimal())
    return next((pid for pid in makers if process_lives(pid)), None)
