"""A planned or running download in words, for the screen and for the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.text import clean
from quantchat.services.pull.files import Offer
from quantchat.services.pull.plan import Plan
from quantchat.services.pull.progress import Progress

if TYPE_CHECKING:
    from quantchat.services.memory import MemoryView

FIT_WORDS = {
    "fits": "fits into the memory that is free now",
    "tight": "fits, but tightly, into the memory that is free now",
    "too big": "too big for the memory that is free now",
    "broken": "cannot be loaded here",
}


def plan_lines(plan: Plan, view: MemoryView | None) -> list[str]:
    """Say what a download brings, what it leaves out, whether it will fit, and what else there is to know."""
    lines = [f"{plan.wanted}: {_files(len(plan.files))}, {format_bytes(plan.total)}{_to_come(plan)}{_room(plan)}"]
    if plan.left_out:
        lines.append(left_out_line(plan.left_out))
    if plan.model is not None:
        lines.append(model_line(plan.model, view))
        lines += verdict_lines(plan.model)
    return [clean(line, newlines=False) for line in [*lines, *plan.notes()]]


def verdict_lines(model: ModelInfo) -> list[str]:
    """Say what is wrong with a model, or what is to be installed for it."""
    lines = [f"{problem.cause} {problem.remedy}" for problem in model.problems]
    if model.verdict.state == "with" and not lines:
        lines.append(f"{model.verdict.reason} {model.verdict.install}")
    return lines


def _to_come(plan: Plan) -> str:
    if plan.missing == plan.total:
        return ""
    return f", {format_bytes(plan.missing)} of them to come" if plan.missing else ", all here"


def _room(plan: Plan) -> str:
    return f"; {format_bytes(plan.free)} free on the disk" if plan.free is not None else ""


def left_out_line(offers: Sequence[Offer]) -> str:
    """Count what is left out, by reason."""
    count, size = Counter(offer.reason for offer in offers), sum(offer.file.size for offer in offers)
    reasons = ", ".join(f"{number} {reason or 'not chosen'}" for reason, number in count.most_common())
    return f"Left out: {_files(len(offers))}, {format_bytes(size)} ({reasons})"


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def model_line(model: ModelInfo, view: MemoryView | None) -> str:
    """Say what model it will be, and whether it will fit."""
    parts = [model.quant.label()]
    if model.parameters:
        size, unit = (model.parameters / 1e9, "B") if model.parameters >= 1e9 else (model.parameters / 1e6, "M")
        parts.append(f"{size:.1f}{unit} parameters")
    if model.weight_bytes:
        parts.append(f"{format_bytes(model.weight_bytes)} of weights")
    if model.context_window:
        parts.append(f"context {model.context_window:,}")
    fit = view.fit(model) if view is not None else None
    return f"{', '.join(parts)}{f': {FIT_WORDS[fit]}' if fit else ''}"


def progress_line(progress: Progress) -> str:
    """Say how far a download is, how fast, and how long it still takes."""
    parts = [f"{format_bytes(progress.done)} of {format_bytes(progress.total)}"]
    if progress.rate:
        parts.append(f"{format_bytes(int(progress.rate))}/s")
    if progress.seconds_left is not None and progress.done < progress.total:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.note:
        parts.append(progress.note)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Write a time as people say it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
