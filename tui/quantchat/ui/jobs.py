"""What is said of a quantization: before it, while it runs, and when it has ended."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from textual.content import Content

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.domain.quantizing import CalibrationReport
from quantchat.domain.sections import Tone
from quantchat.domain.text import clean, shortened
from quantchat.engine.protocol import JobModule
from quantchat.services.pull.describing import duration
from quantchat.services.quantizing.plan import JobState, Outcome, Preflight
from quantchat.ui.status import meter
from quantchat.ui.widgets.rows import shorten

LABEL = 10
LEAST = 12
ANSWER = 300
NAME = 30
"""Cells of a name in a line that has to say more."""
TIGHT = 0.85
"""Above this share of what is free, memory and disk are called tight."""
STYLES: dict[Tone, str] = {"": "", "good": "$success", "warning": "$warning", "error": "$error"}


def percent(share: float) -> str:
    """Write a share; less than all of it is never 100 %."""
    return f"{int(min(max(share, 0.0), 1.0) * 100)}%"


def clock(seconds: float) -> str:
    """Write a time as `2:10` or `1:02:10`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def job_texts(state: JobState) -> tuple[str, ...]:
    """What the status bar says of a job that runs, in ever fewer words."""
    left = f" {clock(state.seconds_left)} left" if state.seconds_left is not None else ""
    share = percent(state.share)
    return tuple(dict.fromkeys((f"quantizing {share}{left}", f"quantizing {share}", share)))


def job_line(name: str, state: JobState) -> str:
    """What the line above the prompt says of it."""
    return f"Quantizing {shorten(clean(name, newlines=False), NAME)}: {_stage(state)}  /quantize shows it"


def _stage(state: JobState) -> str:
    layers = f"layer {max(state.layer, 1)} of {state.layers}" if state.layers else ""
    stage = clean(state.stage, newlines=False)
    return layers if layers and "layer" in stage else stage


# Before


class Fact(NamedTuple):
    """A line of a preflight: what it is about, and the fact."""

    label: str
    value: str
    tone: Tone = ""


def preflight_content(preflight: Preflight, width: int) -> Content:
    """What stands against a quantization, and what it takes, in `width` cells."""
    return Content("\n").join([*_problems(preflight), *_facts(preflight, width)])


def _facts(preflight: Preflight, width: int) -> Iterator[Content]:
    room = max(width - LABEL - 1, LEAST)
    model = preflight.model
    if model is not None:
        yield from _fact(Fact("Model", _described(model)), room)
    if model is None or not preflight.matrices:
        return
    count = f"{preflight.matrices:,} matri{'x' if preflight.matrices == 1 else 'ces'}"
    result = f"{preflight.plan.recipe.label()}, {format_bytes(preflight.result)} in {count}"
    yield from _fact(Fact("Result", result), room)
    yield from _fact(Fact("", shorten(short_path(str(preflight.output)), room)), room)
    if preflight.kernel:
        yield from _fact(Fact("Kernel", preflight.kernel), room)
    for fact in _takes(preflight):
        yield from _fact(fact, room)


def _takes(preflight: Preflight) -> Iterator[Fact]:
    if preflight.device == "cpu":
        yield _room("Memory", preflight.memory, preflight.free)
    else:
        yield _room(preflight.device, preflight.memory, preflight.free)
        yield _room("Host RAM", preflight.host_memory, preflight.host_free)
    yield _room("Disk", preflight.disk, preflight.disk_free)
    if preflight.seconds:
        device = "the CPU" if preflight.device == "cpu" else preflight.device
        yield Fact("Time", f"about {duration(preflight.seconds)} on {device}{preflight.plan.then}")


def _described(model: ModelInfo) -> str:
    parts = [model.name, model.architecture or model.model_type or "", _parameters(model.parameters or 0)]
    return ", ".join(filter(None, [*parts, format_bytes(model.weight_bytes) if model.weight_bytes else ""]))


def _parameters(count: int) -> str:
    if not count:
        return ""
    return f"{count / 1e9:.1f}B parameters" if count >= 1e9 else f"{count / 1e6:.1f}M parameters"


def _room(label: str, needed: int, free: int | None) -> Fact:
    if free is None:
        return Fact(label, f"{format_bytes(needed)} at most")
    tone: Tone = "error" if needed > free else "warning" if needed > TIGHT * free else "good"
    return Fact(label, f"{format_bytes(needed)} of {format_bytes(free)} free", tone)


def _fact(fact: Fact, room: int) -> Iterator[Content]:
    """Lay a fact out, its value in so many cells."""
    label = fact.label
    for line in wrapped(clean(fact.value, newlines=False), room):
        yield Content.assemble((f"{label:<{LABEL}} ", "$accent"), (line, STYLES[fact.tone]))
        label = ""


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines; what has wide letters wherever it ends."""
    lines = textwrap.wrap(text, width) if cell_len(text) == len(text) else chop_cells(text, width)
    return lines or [""]


def short_path(path: str) -> str:
    """Write a path for the screen, with `~` for the home folder."""
    home = str(Path.home())
    return clean(f"~{path[len(home) :]}" if path.startswith(home + "/") else path, newlines=False)


def _problems(preflight: Preflight) -> Iterator[Content]:
    for problem in sorted(preflight.problems, key=lambda problem: problem.severity):
        error = problem.severity == "error"
        mark, style = ("✗", "$error") if error else ("!", "$warning")
        yield Content.styled(f"{mark} {clean(problem.cause, newlines=False)}", style)
        if problem.remedy:
            yield Content.styled(f"  {clean(problem.remedy, newlines=False)}", "dim")
        yield Content()
    if not preflight.problems and preflight.matrices:
        yield Content.styled("✓ Nothing stands against it", "$success")
        yield Content()


# While it runs


def progress_content(state: JobState, cells: int) -> Content:
    """The bar of a job, with what is done and the time that is left."""
    left = f"{clock(state.seconds_left)} left" if state.seconds_left is not None else ""
    words = "  ".join(filter(None, (percent(state.share), left if not state.ended else "")))
    return Content.assemble((meter(state.share, cells), "$primary"), f" {words}")


def stage_content(state: JobState) -> Content:
    """Where it is, since when, and the largest error so far."""
    count = len(state.modules)
    parts = ["" if state.ended else _stage(state), f"{clock(state.seconds)} so far" if not state.ended else ""]
    parts.append(f"{count:,} matri{'x' if count == 1 else 'ces'} done" if count else "")
    return Content("  ".join(filter(None, parts)))


def worst_content(state: JobState) -> Content:
    """The module that lost most."""
    worst = state.worst
    if worst is None:
        return Content()
    return Content.assemble("Largest error ", (error_text(worst), "$warning"), f" at {module_name(worst)}")


def calibration_content(report: CalibrationReport | None) -> Content:
    """What became of the calibration set."""
    return Content() if report is None else Content.styled(f"Calibration: {report.summary()}", "dim")


def module_name(module: JobModule) -> str:
    """Name a module with its layer."""
    name = clean(module.module, newlines=False)
    return f"layer {module.layer + 1} {name}" if module.layer >= 0 else name


def error_text(module: JobModule) -> str:
    """Write a module's error; a dash where GPTQModel gives none."""
    return "–" if module.error is None else f"{module.error:.2e}"


# In the end


def ending_content(state: JobState) -> Content:
    """What came of a job."""
    if state.outcome is not None:
        return Content("\n").join(_made(state.outcome))
    if state.error is None:
        return Content()
    style = "$error" if state.ended == "failed" else "$warning"
    lines = [Content.styled(clean(state.error.title, newlines=False), style)]
    lines += [Content(clean(part)) for part in (state.error.detail, state.error.remedy) if part]
    return Content("\n").join(lines)


def _made(outcome: Outcome) -> Iterator[Content]:
    size = f"{format_bytes(outcome.weight_bytes)}, " if outcome.weight_bytes else ""
    yield Content.assemble(("Made ", "$success"), clean(str(outcome.folder), newlines=False))
    yield Content.styled(f"{size}in {duration(outcome.seconds)}", "dim")
    if outcome.smoke is not None:
        smoke = outcome.smoke
        speed = f"  {smoke.tokens_per_second:.1f} tok/s" if smoke.tokens_per_second else ""
        yield Content.assemble((f"{clean(smoke.question, newlines=False)} ", "$accent"), (f"{speed}", "dim"))
        yield Content(clean(shortened(smoke.answer, ANSWER), newlines=False))
        if smoke.warning:
            yield Content.styled(f"! {clean(smoke.warning, newlines=False)}", "$warning")
    if outcome.quality is not None:
        yield Content.assemble(("Quality  ", "$accent"), quality_words(outcome))
    for note in outcome.notes:
        yield Content.styled(f"! {clean(note.sentence(), newlines=False)}", "$warning")


def quality_words(outcome: Outcome) -> str:
    """The figures that were measured of a result."""
    quality = outcome.quality
    if quality is None:
        return ""
    parts = [f"perplexity {quality.perplexity:.2f}"]
    if quality.divergence is not None:
        parts.append(f"KL {quality.divergence:.4f} nats from {clean(quality.reference, newlines=False)}")
    if quality.agreement is not None:
        parts.append(f"same next token {quality.agreement:.1%}")
    return ", ".join(parts)
