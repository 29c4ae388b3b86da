"""The figures of a benchmark of models and kernels, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Unit = Literal["s", "tok/s", "tokens", "bytes", "bytes/s", "share"]


class Figure(msgspec.Struct, frozen=True):
    """A measured value; `key` is its stable name for programs, `label` the one for people."""

    key: str
    label: str
    value: float
    unit: Unit


class BenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """What one model did with one kernel.

    Attributes:
        decoding: How tokens were computed; `decoding_reason` says why nothing faster.
        versions: Libraries of the engine.
        notes: Warnings of the load, and what could not be measured.
    """

    model: str
    path: str
    quantization: str
    kernel: str
    device: str
    dtype: str
    decoding: str = ""
    decoding_reason: str = ""
    versions: dict[str, str] = {}
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, key: str) -> Figure | None:
        """Return a figure by its key; None if it was not measured."""
        return next((figure for figure in self.figures if figure.key == key), None)


class Row(msgspec.Struct, frozen=True):
    """One figure of all runs; None where a run has none. `ratios` are against the first run."""

    key: str
    label: str
    unit: Unit
    values: tuple[float | None, ...]
    ratios: tuple[float | None, ...]


def compare(runs: Sequence[BenchRun]) -> list[Row]:
    """Put the figures of runs side by side, in the order in which they were measured."""
    first_seen = {figure.key: figure for run in reversed(runs) for figure in run.figures}
    order = dict.fromkeys(figure.key for run in runs for figure in run.figures)
    return [_row(first_seen[key], runs) for key in order]


def _row(like: Figure, runs: Sequence[BenchRun]) -> Row:
    found = [run.figure(like.key) for run in runs]
    values = tuple(figure.value if figure else None for figure in found)
    base = values[0]
    ratios = tuple(value / base if value is not None and base else None for value in values)
    return Row(like.key, like.label, like.unit, values, ratios)
