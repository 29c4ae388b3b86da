"""The models of this machine as lines of text or as objects for JSON."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from quantchat.domain.memory import Fit, format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.text import clean

MARKS: dict[Fit | None, str] = {"fits": "✓", "tight": "~", "too big": "✗", "broken": "!", None: " "}
HEADS = (" ", "MODEL", "QUANTIZATION", "SIZE", "WEIGHTS", "WINDOW")
DEEPEST = 100
"""Levels of a model's settings that JSON shows; no real one has ten."""
FITS: tuple[Fit | None, ...] = ("fits", "tight", "too big", None, "broken")
Judge = Callable[[ModelInfo], Fit | None]


def wanted(models: Iterable[ModelInfo], words: Iterable[str]) -> list[ModelInfo]:
    """Keep the models in whose name, quantization, architecture, kind or path all words occur, in any case."""
    parts = [word.casefold() for word in words]
    return [model for model in models if all(part in _searched(model) for part in parts)]


def _searched(model: ModelInfo) -> str:
    fields = (model.name, model.quant.label(), model.architecture or "", model.kind, model.container, model.path)
    return " ".join(fields).casefold()


def ordered(models: Sequence[ModelInfo], order: str) -> list[ModelInfo]:
    """Sort by name, by size (largest first), by fit into the memory that is free, or by age (newest first)."""
    named = sorted(models, key=lambda model: (model.name.casefold(), model.path))
    if order == "size":
        return sorted(named, key=_size, reverse=True)
    if order == "modified":
        return sorted(named, key=lambda model: model.modified, reverse=True)
    if order == "fit":
        judge = judge_now()
        return sorted(named, key=lambda model: FITS.index(judge(model)))
    return named


def judge_now() -> Judge:
    """Look at the memory of this machine once, and judge models by it."""
    from quantchat.services.memory import look_once

    return asyncio.run(look_once()).fit


def as_objects(models: Iterable[ModelInfo]) -> list[dict[str, Any]]:
    """Return models as plain objects, with what follows from their fields."""
    return [as_object(model) for model in models]


def as_object(model: ModelInfo) -> dict[str, Any]:
    """Return a model as a plain object, with what follows from its fields."""
    fields: dict[str, Any] = plain(model)
    return fields | {"loadable": model.loadable}


def plain(value: Any, depth: int = 0) -> Any:
    """Return structures as objects that have all of their fields, also those that are as usual, fit for JSON."""
    if depth > DEEPEST or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name), depth + 1) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    return [plain(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def json_text(value: Any) -> str:
    """Write plain objects as JSON in ASCII, which no terminal obeys and every pipe carries."""
    return json.dumps(value, separators=(",", ":"))


def lines(models: Sequence[ModelInfo]) -> list[str]:
    """Return a table for a terminal, for programs and pipes a line each: name, quantization, size, path."""
    if sys.stdout.isatty():
        return table(models, judge_now(), shutil.get_terminal_size().columns) if models else []
    return [f"{model.name}  {state(model) or model.quant.label()}  {_bytes(model)}  {model.path}" for model in models]


def state(model: ModelInfo) -> str:
    """Say why a model cannot be loaded; empty if it can."""
    if model.lacks_only_package:
        return f"needs a package: {model.verdict.install}"
    if model.errors:
        return f"cannot load: {model.errors[0].cause}"
    return f"cannot run: {model.verdict.reason}" if model.verdict.state == "cannot" else ""


def table(models: Sequence[ModelInfo], judge: Judge, width: int) -> list[str]:
    """Lay models out in columns, as many as fit into `width` cells; why one cannot be loaded stands behind or below."""
    from rich.cells import cell_len, set_cell_size

    rows = [HEADS, *(tuple(clean(cell, newlines=False) for cell in _cells(model, judge)) for model in models)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    widths[1] = min(widths[1], max(width // 2, 16))
    shown = next((n for n in range(len(widths), 3, -1) if sum(widths[:n]) + 2 * (n - 1) <= width), 3)
    lines = []
    for row, remark in zip(rows, ("", *map(_remark, models)), strict=True):
        line = "  ".join(map(set_cell_size, row[:shown], widths))
        below = cell_len(line) + 2 + cell_len(remark) > width
        lines.append(line if below else f"{line}  {remark}")
        lines += [f"   {remark}"] if below and remark else []
    return [set_cell_size(line, width).rstrip() for line in lines]


def _remark(model: ModelInfo) -> str:
    return clean(state(model), newlines=False)


def _cells(model: ModelInfo, judge: Judge) -> tuple[str, ...]:
    window = f"{model.context_window:,}" if model.context_window else ""
    return (
        MARKS[judge(model)],
        model.name,
        model.quant.label(),
        _bytes(model),
        count(model.parameters),
        window,
    )


def _size(model: ModelInfo) -> int:
    return model.weight_bytes or model.disk_bytes


def _bytes(model: ModelInfo) -> str:
    return model.server or format_bytes(_size(model))


def count(parameters: int | None) -> str:
    """Write a number of weights as people say it: `135 M`, `7.2 B`."""
    if not parameters:
        return ""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if parameters >= size:
            value = parameters / size
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return str(parameters)
