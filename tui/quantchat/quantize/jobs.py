"""Runs the job commands of the protocol: dequantize, quantize, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat.engine.protocol import Dequantize, Evaluate, Quantize
from quantchat.errors import Cancelled, JobError, QuantchatError
from quantchat.staging import staged

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

Job = Dequantize | Quantize | Evaluate
Figures = dict[str, float]

TITLES = {Dequantize: "Dequantizing failed", Quantize: "Quantizing failed", Evaluate: "Measuring perplexity failed"}


def run(
    command: Job, progress: Callable[[str, int, int], None], cancelled: Callable[[], bool]
) -> tuple[str, dict[str, float]]:
    """Do a job to its end, in the calling thread.

    Args:
        command: What to do.
        progress: Called with a stage, the steps done and their total (0: not known).
        cancelled: Asked between steps; true ends the job with `Cancelled`.

    Returns:
        The output folder (empty for an evaluation) and the measured figures, by name.

    Raises:
        Cancelled: if the user stopped it; nothing half made is left.
        JobError: if it failed; nothing half made is left.
        StorageError: if the disk refused or the output exists.
    """
    from quantchat.quantize.watch import Watch

    watch = Watch(progress, cancelled)
    watch.check()
    try:
        return _run(command, watch)
    except QuantchatError:
        raise
    except Exception as error:
        if cancelled():
            raise Cancelled("Stopped") from error
        raise JobError(TITLES[type(command)], f"{type(error).__name__}: {error}") from error


def _run(command: Job, watch: Watch) -> tuple[str, Figures]:
    match command:
        case Dequantize():
            return _dequantize(command, watch)
        case Quantize():
            return _quantize(command, watch)
        case Evaluate():
            return _evaluate(command, watch)


def _dequantize(command: Dequantize, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import dequantize

    source = _existing(command.source)
    with staged(Path(command.output)) as folder:
        dequantize.convert(source, folder, watch)
        watch.check()
    return command.output, {}


def _quantize(command: Quantize, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import gptq

    recipe = gptq.Recipe(
        bits=command.bits, group_size=command.group_size, desc_act=command.desc_act, damping=command.damping
    )
    source = _existing(command.source)
    calibration = Path(command.calibration) if command.calibration else None
    with staged(Path(command.output)) as folder:
        gptq.quantize(source, folder, recipe, calibration, watch)
        watch.check()
    return command.output, {}


def _evaluate(command: Evaluate, watch: Watch) -> tuple[str, Figures]:
    from quantchat.quantize import perplexity

    text = Path(command.text) if command.text else perplexity.HELD_OUT
    result = perplexity.evaluate(_existing(command.model.path), text.read_text(encoding="utf-8"), watch)
    return "", {"perplexity": result.perplexity, "tokens": float(result.tokens)}


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise JobError(f"{path} is not there", remedy="Check the path")
    return path
