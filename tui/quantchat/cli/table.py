"""The figures of benchmark runs as a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from quantchat.domain.bench import BenchRun, Row, Unit, compare
from quantchat.domain.memory import format_bytes

ABSENT = "-"


def table(runs: Sequence[BenchRun]) -> str:
    """Name the runs, put their figures side by side, and the others' ratios to the first."""
    names = _names(len(runs))
    heads = [f"{name}  {_headline(run)}".strip() for name, run in zip(names, runs, strict=True)]
    notes = [
        f"{name}: {note}".removeprefix(": ") for name, run in zip(names, runs, strict=True) for note in _notes(run)
    ]
    rows = [_cells(row) for row in compare(runs)]
    if len(runs) > 1:
        rows.insert(0, ["", *names, *(f"{name} / {names[0]}" for name in names[1:])])
    return "\n".join([*heads, "", *_aligned(rows), *([""] if notes else []), *notes])


def _names(count: int) -> list[str]:
    """Short names of columns: letters, numbers where those do not reach, and none for one column."""
    if count > len(ascii_uppercase):
        return [str(number) for number in range(1, count + 1)]
    return list(ascii_uppercase[:count]) if count > 1 else [""]


def _headline(run: BenchRun) -> str:
    parts = (run.model, run.quantization, run.kernel, run.device, run.dtype, run.decoding)
    return " · ".join(part for part in parts if part)


def _notes(run: BenchRun) -> list[str]:
    reason = [f"Decoding is {run.decoding}: {run.decoding_reason}"] if run.decoding_reason else []
    return [*reason, *run.notes]


def _cells(row: Row) -> list[str]:
    values = [ABSENT if value is None else written(value, row.unit) for value in row.values]
    ratios = [ABSENT if ratio is None else f"{ratio:.2f} ×" for ratio in row.ratios[1:]]
    return [row.label, *values, *ratios]


def written(value: float, unit: Unit) -> str:
    """Write a figure as people read it."""
    match unit:
        case "bytes":
            return format_bytes(int(value))
        case "bytes/s":
            return f"{format_bytes(int(value))}/s"
        case "share":
            return f"{value:.0%}".replace("%", " %")
        case "s":
            return f"{value:.1f} s" if value >= 10 else f"{value:.3f} s"
        case _:
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
