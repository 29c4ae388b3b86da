"""Runs the job commands of the protocol that need no loaded model: dequantize, quantize, survey."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.engine.protocol import Calibrated, Dequantize, Event, Quantize, Survey
from quantchat.errors import Cancelled, JobError, QuantchatError
from quantchat.holding import held
from quantchat.staging import staged

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

Job = Dequantize | Quantize | Survey
Figures = dict[str, float]

TITLES: dict[type[Job], str] = {
    Dequantize: "Dequantizing failed",
    Quantize: "Quantizing failed",
    Survey: "Reading the calibration set failed",
}


def run(command: Job, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> tuple[str, Figures]:
    """Do a job to its end, in the calling thread.

    Args:
        command: What to do.
        emit: Called with what the job tells while it runs.
        cancelled: Asked between steps; true ends the job with `Cancelled`.

    Returns:
        The output folder (empty for a survey) and the measured figures, by name.

    Raises:
        Cancelled: if the user stopped it; nothing half made is left.
        JobError: if it failed; nothing half made is left.
        StorageError: if the disk refused or the output exists.
    """
    from quantchat.quantize.watch import Watch

    watch = Watch(emit, cancelled, command.job)
    watch.check()
    try:
        result = _run(command, watch)
    except QuantchatError:
        raise
    except Exception as error:
        if cancelled():
            raise Cancelled("Stopped") from error
        raise JobError(TITLES[type(command)], f"{type(error).__name__}: {error}") from error
    watch.finish()
    return result


def _run(command: Job, watch: Watch) -> tuple[str, Figures]:
    match command:
        case Dequantize():
            return _dequantize(command, watch)
        case Quantize():
            return _quantize(command, watch)
        case Survey():
            return _survey(command, watch)


def _dequantize(command: Dequantize, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import dequantize

    source = _existing(command.source)
    watch.plan(dequantize.STAGES)
    with staged(Path(command.output)) as folder:
        dequantize.convert(source, folder, watch)
        watch.check()
    return command.output, {}


def _quantize(command: Quantize, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import quantizer, sources

    watch.plan(quantizer.stages(command))
    with held(command.source) as free, staged(Path(command.output)) as folder:
        if not free:
            detail = f"Another process has {command.source} to itself"
            raise JobError("The source is being deleted", detail, "Choose another model", code="in-removal")
        scratch = folder / sources.SCRATCH
        scratch.mkdir()
        adapter = Path(command.adapter) if command.adapter else None
        source = sources.prepared(Path(command.source), adapter, scratch, watch)
        quantizer.quantize(source, folder, command.recipe, command.calibration, watch)
        shutil.rmtree(scratch)
        watch.check()
    return command.output, {}


def _survey(command: Survey, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import calibration

    watch.plan({calibration.TOKENIZING: 1.0})
    tokenizer = _tokenizer(_existing(command.source))
    report = calibration.prepare(tokenizer, command.calibration, watch)[1]
    watch.emit(Calibrated(job=command.job, report=report))
    return "", {}


def _tokenizer(source: Path) -> Any:
    from transformers import AutoTokenizer

    if source.is_file():
        return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    return AutoTokenizer.from_pretrained(source)


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise JobError(f"{path} is not there", remedy="Check the path")
    return path
