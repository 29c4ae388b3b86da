"""Why llama.cpp did not load a file, by its own words: it returns nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.errors import LoadError

UPDATE = "pip install --upgrade llama-cpp-python"
REASON = "error loading model: "
AGAIN = "Download the file again, or take another version of the model."


class _Fault(NamedTuple):
    """Words that tell a fault, and what is said of it."""

    words: re.Pattern[str]
    code: str
    title: str
    remedy: Callable[[ModelInfo], str]


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


FAULTS = (
    _Fault(
        _words(r"unknown model architecture|unknown pre-tokenizer|unsupported (?:model|tensor type)|invalid ggml type"),
        "architecture",
        "This llama.cpp does not know the model",
        lambda _: f"A newer one may: {UPDATE}",
    ),
    _Fault(
        _words(r"out of memory|failed to allocate|unable to allocate|cannot allocate|alloc.*failed"),
        "out-of-memory",
        "There is not enough memory for the model",
        lambda info: (
            f"Its weights alone take {format_bytes(info.weight_bytes)}: take a smaller version, end other programs, or "
            "lower `kv_cache_gib` in the settings."
        ),
    ),
    _Fault(
        _words(r"within the file bounds|corrupted|invalid magic|failed to read|unexpectedly reached end|bad_alloc"),
        "damaged",
        "The file is damaged or incomplete",
        lambda _: AGAIN,
    ),
    _Fault(
        _words(r"missing tensor|tensor '.*' not found|wrong number of tensors|has wrong shape|key not found"),
        "damaged",
        "The file lacks a part of the model",
        lambda _: f"{AGAIN} Or this llama.cpp is too old for it: {UPDATE}",
    ),
    _Fault(
        _words(r"failed to open|no such file|permission denied|failed to load split|invalid split"),
        "file",
        "A file of the model cannot be read",
        lambda _: "Look whether all its parts are there and readable.",
    ),
)


def load_error(info: ModelInfo, said: str) -> LoadError:
    """Explain a load that gave nothing.

    Args:
        info: The model.
        said: The warnings and errors of llama.cpp's log.
    """
    for fault in FAULTS:
        line = next((line for line in said.splitlines() if fault.words.search(line)), None)
        if line is not None:
            return LoadError(fault.title, _clean(line), fault.remedy(info), code=fault.code)
    # The last line only says that it failed.
    lines = said.splitlines() or [""]
    reason = next((line for line in lines if REASON in line), lines[-1])
    return LoadError("llama.cpp did not load the model", _clean(reason), AGAIN)


def _clean(line: str) -> str:
    """Leave out the name of the function that speaks."""
    return re.sub(r"^[\w:~]+: ", "", line).strip()[:300]
