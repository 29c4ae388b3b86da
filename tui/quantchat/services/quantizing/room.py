"""Memory, disk and time that a plan takes, against what this machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from quantchat import paths
from quantchat.domain.estimates import Estimate, Machine, Text, estimate, usable
from quantchat.domain.matrices import Matrix
from quantchat.domain.memory import format_bytes
from quantchat.domain.models import Problem
from quantchat.domain.quantizing import AWQ_TOKENS, ENOUGH_SAMPLES, PROSE_SUFFIXES, SHORTEST_SAMPLE, CalibrationChoice
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.hardware.host import free_disk
from quantchat.hardware.visible import visible
from quantchat.services.memory import MemoryView
from quantchat.services.quantizing.checks import fault
from quantchat.services.quantizing.plan import Plan, Preflight

TOKEN_BYTES = 3.2
"""Bytes of text per token, over the languages of the bundled set."""
LOOKED_AT = 1 << 20
"""Bytes of a calibration file that tell how long its lines are."""
SESSION_SAMPLES = 256
SURELY = 0.75
"""Estimates of memory may be that much too high: what lacks less than the rest is only warned of."""


def gpus_of(view: MemoryView) -> tuple[GpuDevice, ...]:
    """The GPUs that the engine process would see."""
    return visible(view.gpus.devices) if isinstance(view.gpus, GpuSnapshot) else ()


def judge_room(preflight: Preflight, found: Sequence[Matrix], view: MemoryView) -> Preflight:
    """Fill in what the plan takes, and say what of it is not there."""
    assert preflight.model is not None
    plan, gpus = preflight.plan, gpus_of(view)
    machine = Machine(cores=os.cpu_count() or 1, gpu=bool(gpus))
    text = text_of(plan, machine)
    takes = estimate(
        plan.recipe,
        found,
        preflight.model.parameters or sum(matrix.parameters for matrix in found),
        text,
        machine,
        copies=(preflight.model.container == "gguf") + bool(plan.adapter),
    )
    filled = _on_gpu(preflight, takes, gpus[0]) if gpus else _on_cpu(preflight, takes, view)
    filled = msgspec.structs.replace(
        filled,
        host_memory=takes.host,
        host_free=usable(view.host.available),
        disk=takes.disk,
        disk_free=free_disk(preflight.output.parent),
        result=takes.result,
        seconds=takes.seconds,
        matrices=sum(matrix.count for matrix in found),
    )
    readable = not any(problem.code == "calibration" for problem in filled.problems)
    little = tuple(_little(text, found)) if readable else ()
    return msgspec.structs.replace(filled, problems=(*filled.problems, *_problems(filled), *little))


def _on_gpu(preflight: Preflight, takes: Estimate, gpu: GpuDevice) -> Preflight:
    return msgspec.structs.replace(
        preflight,
        device=f"cuda:{gpu.index}",
        memory=takes.device,
        free=None if gpu.free is None else usable(gpu.free),
        held=gpu.engine_bytes or 0,
    )


def _on_cpu(preflight: Preflight, takes: Estimate, view: MemoryView) -> Preflight:
    return msgspec.structs.replace(
        preflight, memory=takes.host, free=usable(view.host.available), held=view.engine_host_bytes or 0
    )


def _problems(filled: Preflight) -> Iterator[Problem]:
    severity: Literal["error", "warning"] = "warning" if filled.plan.force else "error"
    if filled.free is not None and filled.memory > filled.free:
        yield _memory(filled, severity)
    if filled.device != "cpu" and filled.host_free is not None and filled.host_memory > filled.host_free:
        cause = (
            f"The host needs {format_bytes(filled.host_memory)} of memory, {format_bytes(filled.host_free)} are free"
        )
        yield fault("memory", cause, "End other programs", _sure(filled.host_memory, filled.host_free, severity))
    if filled.disk_free is not None and filled.disk > filled.disk_free:
        cause = f"The disk has {format_bytes(filled.disk_free)} free, {format_bytes(filled.disk)} are needed"
        yield fault("disk", cause, "Free some space, or choose an output folder on another disk", severity)


def _memory(filled: Preflight, severity: Literal["error", "warning"]) -> Problem:
    assert filled.free is not None
    place = "" if filled.device == "cpu" else f" on {filled.device}"
    what = f"It needs about {format_bytes(filled.memory)} of memory{place}, {format_bytes(filled.free)} are free"
    if filled.memory <= filled.free + filled.held:
        cause = f"{what}; the loaded model holds {format_bytes(filled.held)}"
        return fault("memory-held", cause, "Unload the model that chats", _sure(filled.memory, filled.free, severity))
    remedy = "End programs that hold memory, or take fewer and shorter samples"
    return fault("memory", what, remedy, _sure(filled.memory, filled.free, severity))


def _little(text: Text, found: Sequence[Matrix]) -> Iterator[Problem]:
    """Of a matrix with more inputs than tokens were seen, some directions are not known at all."""
    widest = max(matrix.inputs for matrix in found)
    if text.all_tokens < widest:
        cause = f"About {text.all_tokens:,.0f} tokens of text are little for matrices of {widest:,} inputs"
        yield fault("little-text", cause, "Take more samples, or a longer text", "warning")


def _sure(needed: int, free: int, severity: Literal["error", "warning"]) -> Literal["error", "warning"]:
    return severity if needed * SURELY > free else "warning"


def text_of(plan: Plan, machine: Machine) -> Text:
    """Estimate how much text the model will read, from the sizes of the file and of its first lines."""
    length = max(plan.calibration.length, SHORTEST_SAMPLE)
    choice = msgspec.structs.replace(plan.calibration, length=length)
    text = _text(plan, choice)
    if plan.recipe.method != "awq":
        return text
    # AWQ gets rows of one length, and of them only so many as it is likely to gain from.
    most = AWQ_TOKENS["cuda" if machine.gpu else "cpu"]
    tokens = text.all_tokens if choice.samples else min(text.all_tokens, most)
    return Text(max(round(tokens / choice.length), 1), float(choice.length))


def _text(plan: Plan, choice: CalibrationChoice) -> Text:
    if plan.sessions is not None:
        return Text(choice.samples or SESSION_SAMPLES, choice.length / 2)
    path = Path(choice.path).expanduser() if choice.path else paths.calibration_file()
    size, line = _sizes(path)
    if path.suffix.lower() in PROSE_SUFFIXES:
        return _prose(size, choice)
    samples = min(max(size / max(line, 1.0), 1.0), choice.samples or ENOUGH_SAMPLES)
    return Text(round(samples), min(max(line / TOKEN_BYTES, 1.0), float(choice.length)))


def _prose(size: float, choice: CalibrationChoice) -> Text:
    """Plain text is packed into samples of the whole length."""
    samples = max(size / TOKEN_BYTES / choice.length, 1.0)
    return Text(round(min(samples, choice.samples or ENOUGH_SAMPLES)), float(choice.length))


def _sizes(path: Path) -> tuple[float, float]:
    """Return the bytes of a file, and of a line of it on average."""
    try:
        # A pipe that nobody writes into would be waited for without end.
        if not path.is_file():
            return 0.0, 0.0
        with path.open("rb") as file:
            begin, size = file.read(LOOKED_AT), os.fstat(file.fileno()).st_size
    except OSError:
        return 0.0, 0.0
    return float(size), len(begin) / max(begin.count(b"\n"), 1)
