"""GPTQ and AWQ quantization of a model folder, through GPTQModel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.domain.quantizing import AWQ_TOKENS, DAMPING, CalibrationChoice, Recipe, refusals
from quantchat.engine.protocol import Calibrated, Quantize
from quantchat.errors import JobError, QuantchatError, StorageError
from quantchat.quantize import calibration, examples, hooks, keeping, sources
from quantchat.quantize.calibration import BATCH

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

ERROR_NORM = 2.4
"""GPTQModel's `mse`: each group's scale is searched for the least error in this norm instead of taken from its largest
weight. On SmolLM2-135M (4 bits, group 64) the divergence from bf16 fell from 0.21 to 0.16 nats per token of a chat;
groups of 32, act-order or another damping gained less."""
AWQ_ROW = 256
"""Longest row for AWQ: attention, which is half of its work on the CPU, grows with the square."""
READING = "reading weights"
WRITING = "writing the model folder"


def stages(command: Quantize) -> dict[str, float]:
    """Return the stages of a job in their order, and about how long each takes beside the others."""
    from quantchat.quantize import dequantize, lora

    before = {examples.READING: 0.5, READING: 2.0, sources.CHECKING: 0.5, calibration.TOKENIZING: 0.5}
    always = before | {hooks.LAYERS: 95.0, WRITING: 2.0}
    unpacking = dequantize.STAGES if Path(command.source).is_file() else {}
    return unpacking | (lora.STAGES if command.adapter else {}) | always


def quantize(source: Path, folder: Path, recipe: Recipe, choice: CalibrationChoice, watch: Watch) -> None:
    """Write a GPTQ or AWQ folder into an existing one that is empty but for its scratch.

    Args:
        source: An ordinary model folder.
        folder: Where to write.
        recipe: How to quantize.
        choice: What the quantizer watches the model read.
        watch: Hears of each step; a stop is obeyed within a moment.

    Raises:
        Cancelled: if the user stopped it; nothing is saved.
        JobError: if recipe, calibration and model do not go together.
        StorageError: if the disk is full.
    """
    recipe = recipe.resolved(matrix.sides for matrix in sources.matrices(source, recipe.lm_head))
    check(source, recipe)
    calibration.check(choice, watch)
    model = _load(source, recipe, watch)
    sources.require_finite(model.model, watch)
    rows = _rows(model, choice, recipe, watch)
    _run(model, rows, recipe, folder / sources.SCRATCH, watch)
    watch.check()
    watch.report(WRITING)
    with _full_disk(folder):
        model.save(str(folder))
        keeping.keep_files(source, folder)


def check(source: Path, recipe: Recipe) -> None:
    """Raise `JobError` for what cannot be made of this model, or not on this machine."""
    config = sources.config_of(source)
    sources.require_unquantized(config)
    found = sources.matrices(source, recipe.lm_head)
    for refusal in refusals(recipe, [matrix.sides for matrix in found]):
        raise JobError(refusal.cause, remedy=refusal.remedy, code=refusal.code)
    if recipe.lm_head and config.get("tie_word_embeddings", True):
        cause = "The output head of this model is its input embedding, which stays as it is"
        raise JobError(cause, remedy="Leave lm_head out", code="lm-head")
    if recipe.packing == "gemv_fast" and _device() == "cpu":
        raise JobError("gemv_fast can only be packed on a CUDA GPU", remedy="Choose gemm", code="format")


def _load(source: Path, recipe: Recipe, watch: Watch) -> Any:
    # On two cores or fewer GPTQModel's thread pool refuses to start without it; it is read at import.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import GPTQModel

    from quantchat.quantize.watch import transformers_progress

    watch.report(READING)
    with _explained(watch, _unknown), sources.reading(source), transformers_progress(watch, READING):
        return GPTQModel.load(str(source), config_for(recipe), device=_device())


def config_for(recipe: Recipe) -> Any:
    """Return GPTQModel's settings for a recipe."""
    from gptqmodel.quantization.config import FORMAT, METHOD, QuantizeConfig

    only_gptq: dict[str, Any] = {}
    if recipe.method == "gptq":
        # Sorting within groups needs groups, and act-order sorts all columns itself.
        only_gptq = {
            "mse": ERROR_NORM,
            "act_group_aware": not recipe.desc_act and recipe.group_size != -1,
            "damp_percent": DAMPING if recipe.damping is None else recipe.damping,
        }
    return QuantizeConfig(
        method=METHOD(recipe.method),
        format=FORMAT(recipe.packing),
        bits=recipe.bits,
        group_size=recipe.group_size,
        desc_act=recipe.desc_act,
        sym=recipe.symmetric,
        lm_head=recipe.lm_head,
        offload_to_disk=False,
        **only_gptq,
    )


def _device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _rows(model: Any, choice: CalibrationChoice, recipe: Recipe, watch: Watch) -> list[list[int]]:
    """Tokenize the calibration text.

    AWQ gets rows of one length: of rows of several, GPTQModel's only looks at the last batch.
    """
    awq = recipe.method == "awq"
    window = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
    choice = calibration.within(choice, window)
    rows, report = calibration.prepare(model.tokenizer, choice, watch, BATCH)
    if awq:
        rows = _within_limit(calibration.packed(rows, min(choice.length, AWQ_ROW)), choice)
        report = calibration.described(report, rows, BATCH)
    watch.emit(Calibrated(job=watch.job, report=report))
    return rows


def _within_limit(rows: list[list[int]], choice: CalibrationChoice) -> list[list[int]]:
    most = AWQ_TOKENS[_device().partition(":")[0]]
    limit = len(rows) if choice.samples else max(1, most // len(rows[0]))
    return [rows[number * len(rows) // limit] for number in range(limit)] if len(rows) > limit else rows


def _run(model: Any, rows: list[list[int]], recipe: Recipe, scratch: Path, watch: Watch) -> None:
    layers = model.model.config.get_text_config().num_hidden_layers + recipe.lm_head
    progress = hooks.Progress(watch, layers, recipe.method)
    model.subset_callback = model.layer_callback = progress
    batches = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    watch.report(hooks.LAYERS, 0, layers * hooks.STEPS)
    with hooks.hooked(watch, progress, scratch), _explained(watch, _lost):
        model.quantize(batches, batch_size=BATCH)
    progress.tell_uncalibrated()


@contextmanager
def _explained(watch: Watch, explain: Callable[[Exception], JobError | None]) -> Iterator[None]:
    """Put into words what GPTQModel raises; where even `explain` knows none, its own stand."""
    from quantchat.engine.memory import is_out_of_memory, out_of_memory

    try:
        yield
    except QuantchatError:
        raise
    except Exception as error:
        watch.check()
        if is_out_of_memory(error):
            raise out_of_memory(_device(), JobError, error) from error
        if (told := explain(error)) is not None:
            raise told from error
        raise


def _unknown(error: Exception) -> JobError:
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    remedy = "Load it for chatting to see whether it is sound; GPTQModel may not know its architecture yet"
    return JobError("GPTQModel cannot read this model", detail, remedy, code="architecture")


def _lost(error: Exception) -> JobError | None:
    """Explain the two that GPTQModel raises without words."""
    if isinstance(error, AssertionError) or type(error) is Exception:
        return hooks.not_finite("a layer")
    if isinstance(error, KeyError) and "q_zeros" in str(error):
        detail = "GPTQModel does not know in which order its layers are to be scaled"
        return JobError("AWQ cannot be done with this architecture", detail, "Choose GPTQ", code="architecture")
    return None


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Recognise a full disk, which the writer of the weights tells only in words."""
    try:
        yield
    except Exception as error:
        if "No space left" in str(error) and not isinstance(error, OSError):
            remedy = "Free some space or choose another folder"
            raise StorageError(f"Cannot write {folder.parent}", "No space left on device", remedy) from error
        raise
