"""A quantization in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import Problem
from quantchat.domain.quantizing import CalibrationReport
from quantchat.domain.text import clean, shortened
from quantchat.engine.protocol import JobModule
from quantchat.services.pull.describing import duration
from quantchat.services.quantizing.card import BUNDLED
from quantchat.services.quantizing.plan import JobState, Outcome, Plan, Preflight, Smoke

LABEL = 9
NAME = 60
ANSWER = 400


def preflight_lines(preflight: Preflight) -> Iterator[str]:
    """Say what will be made, and what that takes."""
    plan, model = preflight.plan, preflight.model
    name = shortened(model.name, NAME) if model is not None else shortened(plan.source, NAME)
    size = f", {format_bytes(preflight.result)}" if preflight.result else ""
    yield f"{name} → {plan.recipe.label()}{size}"
    if plan.adapter:
        yield _fact("adapter", f"{plan.adapter}, merged first")
    yield _fact("into", str(preflight.output))
    yield _fact("text", _text(plan))
    if not preflight.matrices:
        return
    place = "the CPU" if preflight.device == "cpu" else preflight.device
    yield _fact("memory", _room(preflight.memory, preflight.free, "" if preflight.device == "cpu" else f" on {place}"))
    if preflight.device != "cpu":
        yield _fact("host", _room(preflight.host_memory, preflight.host_free, " of the host's memory"))
    yield _fact("disk", _room(preflight.disk, preflight.disk_free))
    matrices = f"{preflight.matrices:,} matri{'x' if preflight.matrices == 1 else 'ces'}"
    yield _fact("time", f"about {duration(preflight.seconds)} on {place}, {matrices}{plan.then}")
    if preflight.kernel:
        yield _fact("kernel", f"{preflight.kernel} will run it here")


def _text(plan: Plan) -> str:
    choice = plan.calibration
    name = "own sessions" if plan.sessions is not None else choice.name or choice.path or BUNDLED
    samples = f"{choice.samples:,} samples" if choice.samples else "samples"
    return f"{name}, {samples} of at most {choice.length:,} tokens"


def _room(needed: int, free: int | None, where: str = "") -> str:
    there = f", {format_bytes(free)} free" if free is not None else ""
    return f"about {format_bytes(needed)}{where}{there}"


def _fact(label: str, text: str) -> str:
    return f"  {label:{LABEL}}{clean(text, newlines=False)}"


def problem_line(problem: Problem) -> str:
    """Say what stands against it, and what to do."""
    cause, remedy = problem.cause.rstrip("."), problem.remedy.rstrip(".")
    return clean(f"{problem.severity}: {cause}. {remedy}".rstrip(". ") + ".", newlines=False)


def text_line(report: CalibrationReport) -> str:
    """Say what became of the calibration text."""
    return _fact("text", report.summary())


def module_line(module: JobModule) -> str:
    """Say what a matrix lost."""
    name = clean(module.module, newlines=False)
    return f"{_place(module)}  {name:26} {_error(module.error):>10}  {module.seconds:.1f} s"


def layer_line(modules: Sequence[JobModule]) -> str:
    """Say what the matrices of a layer lost: on average, and the worst by name."""
    known = [(module.error, module) for module in modules if module.error is not None]
    if not known:
        return f"{_place(modules[0])}  {len(modules)} matrices"
    mean = sum(error for error, _ in known) / len(known)
    worst = max(known, key=lambda pair: pair[0])[1]
    name = clean(worst.module, newlines=False)
    return f"{_place(modules[0])}  error {_error(mean)}  worst {_error(worst.error)} in {name}"


def _place(module: JobModule) -> str:
    return f"layer {module.layer + 1:>3} of {module.layers}" if module.layer >= 0 else "outside of the layers"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.2e}"


def stage_words(state: JobState) -> str:
    """Say what is done now."""
    if state.layers and "layer" in state.stage:
        return f"{state.stage}: {max(state.layer, 1)} of {state.layers}"
    return state.stage


def step_line(state: JobState) -> str:
    """Say how far it is, where no bar is drawn."""
    left = f", {duration(state.seconds_left)} left" if state.seconds_left is not None and not state.ended else ""
    return f"{int(state.share * 100)}% {stage_words(state)}{left}"


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """Say what was made, what it answers, and how good it is."""
    if outcome.weight_bytes:
        yield f"Made in {duration(outcome.seconds)}, {format_bytes(outcome.weight_bytes)} of weights"
    if outcome.smoke is not None:
        yield from _smoke(outcome.smoke)
    if outcome.quality is not None:
        yield _fact("quality", quality_words(outcome))


def _smoke(smoke: Smoke) -> Iterator[str]:
    yield _fact("asked", smoke.question)
    yield _fact("answered", shortened(smoke.answer, ANSWER))
    yield _fact("", f"{smoke.tokens_per_second:.1f} tokens per second with {smoke.kernel}")
    if smoke.warning:
        yield _fact("warning", f"{smoke.warning}. Something was lost: try more bits, smaller groups or other text")


def quality_words(outcome: Outcome) -> str:
    """Say what was measured."""
    quality = outcome.quality
    assert quality is not None
    parts = [f"perplexity {quality.perplexity:.2f}"]
    if quality.reference_perplexity:
        parts[0] += f" ({quality.reference_perplexity:.2f} before)"
    if quality.divergence is not None:
        parts.append(f"KL divergence {quality.divergence:.4f}")
    if quality.agreement is not None:
        parts.append(f"same next token {quality.agreement:.1%}")
    return f"{', '.join(parts)}, over {quality.tokens:,} tokens"
