"""A quantization as the scripted engine plays it: calibration, layer after layer, a folder that the catalog knows."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from quantchat.domain.quantizing import CalibrationReport
from quantchat.engine.protocol import Calibrated, Event, JobFailed, JobFinished, JobModule, JobProgress, Log, Quantize
from quantchat.errors import ErrorReport
from unit.catalog.model_folders import make_gptq

CANCELLED = ErrorReport(code="cancelled", title="Stopped")
LOOK_SECONDS = 0.02
CALIBRATION = CalibrationReport(samples=24, dropped=1, cut=2, tokens=4096, shortest=12, middle=170, longest=512)


class QuantizeScript(msgspec.Struct, forbid_unknown_fields=True):
    """What a quantization does.

    Attributes:
        seconds: For each layer.
        hold: A file; the second half of the layers waits until it is there.
        fail: What it fails with after the first layer; `crash` ends the process there.
    """

    layers: int = 4
    modules: tuple[str, ...] = ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
    seconds: float = 0.02
    hold: str = ""
    fail: ErrorReport | None = None
    crash: bool = False


class Stopped(Exception):
    """The program said stop."""


class Crashed(Exception):
    """The process is to end."""


def quantize(
    command: Quantize, script: QuantizeScript, stopped: threading.Event, emit: Callable[[Event], None]
) -> JobFinished | JobFailed:
    """Play the job to its end, and return its last event."""
    begun = time.monotonic()
    try:
        for event in _events(command, script, stopped):
            emit(event)
    except Stopped:
        return JobFailed(job=command.job, error=CANCELLED)
    if script.fail is not None:
        return JobFailed(job=command.job, error=script.fail)
    _write(Path(command.output), command)
    emit(JobProgress(job=command.job, stage="writing", done=1, total=1, share=1.0))
    return JobFinished(job=command.job, output=command.output, figures={"seconds": time.monotonic() - begun})


def _events(command: Quantize, script: QuantizeScript, stopped: threading.Event) -> Iterator[Event]:
    yield JobProgress(job=command.job, stage="reading weights", share=0.05)
    yield Calibrated(job=command.job, report=CALIBRATION)
    yield Log(level="info", text="scripted: calibration is ready")
    for layer in range(script.layers):
        if layer * 2 >= script.layers:
            _wait_for(script.hold, stopped)
        for place, module in enumerate(script.modules):
            if stopped.wait(script.seconds / len(script.modules)):
                raise Stopped
            yield JobModule(
                job=command.job,
                layer=layer,
                layers=script.layers,
                module=module,
                error=1e-4 * (1 + layer) * (1 + place),
                samples=CALIBRATION.tokens,
                seconds=script.seconds,
            )
        done = layer + 1
        share = 0.1 + 0.8 * done / script.layers
        yield JobProgress(job=command.job, stage="quantizing layers", done=done, total=script.layers, share=share)
        if script.crash:
            raise Crashed
        if script.fail is not None:
            return


def _wait_for(name: str, stopped: threading.Event) -> None:
    while name and not Path(name).exists():
        if stopped.wait(LOOK_SECONDS):
            raise Stopped


def _write(output: Path, command: Quantize) -> None:
    """Make the folder, whole at once."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    recipe = command.recipe
    group = recipe.group_size or 64
    make_gptq(partial, bits=recipe.bits, group_size=group, desc_act=recipe.desc_act, sym=recipe.symmetric)
    partial.rename(output)
