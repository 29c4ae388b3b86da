"""GPTQ quantization of a model folder, through GPTQModel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantchat.errors import Cancelled, JobError
from quantchat.quantize import calibration as calibration_set

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

BITS = (2, 3, 4, 8)
BATCH = 8
ERROR_NORM = 2.4
"""GPTQModel's `mse`: each group's scale is searched for the least error in this norm instead of taken from its largest
weight. On SmolLM2-135M (4 bits, group 64) the divergence from bf16 fell from 0.21 to 0.16 nats per token of a chat;
groups of 32, act-order or another damping gained less."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of a quantization; see `protocol.Quantize` for their meaning."""

    bits: int = 4
    group_size: int = 64
    desc_act: bool = False
    damping: float | None = None

    def check(self, config: dict[str, Any]) -> None:
        """Raise `JobError` for what GPTQ cannot do or the model's `config.json` does not allow."""
        if self.bits not in BITS:
            raise JobError(f"{self.bits} bits are not possible with GPTQ", remedy="Choose 4 or 8")
        if config.get("quantization_config"):
            raise JobError("This model is quantized already", remedy="Start from the unquantized folder")
        width = config.get("hidden_size")
        if self.group_size > 0 and isinstance(width, int) and width % self.group_size:
            raise JobError(
                f"Groups of {self.group_size} do not fit", f"the hidden size is {width}", "Choose 32, 64 or 128"
            )


def quantize(source: Path, folder: Path, recipe: Recipe, calibration: Path | None, watch: Watch) -> None:
    """Write a GPTQ folder into an existing empty one.

    Args:
        source: An ordinary model folder.
        folder: Where to write.
        recipe: How to quantize.
        calibration: JSONL file of conversations; None takes the bundled set.
        watch: Hears of each group of linear modules that is done; a stop is obeyed within one.

    Raises:
        Cancelled: if the user stopped it; nothing is saved.
        JobError: if recipe, calibration and model do not go together.
    """
    source, folder = source.absolute(), folder.absolute()
    recipe.check(json.loads((source / "config.json").read_text(encoding="utf-8")))
    # On two cores or fewer GPTQModel's thread pool refuses to start without it; it is read at import.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    from gptqmodel import GPTQModel
    from gptqmodel.looper.module_looper import StopMainLoop

    watch.report("reading weights")
    model = GPTQModel.load(str(source), _config(recipe), device=_device())
    samples = calibration_set.token_ids(model.tokenizer, calibration)
    model.subset_callback = _subset_callback(watch, model.model.config.num_hidden_layers, StopMainLoop)
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples]
    try:
        model.quantize(rows, batch_size=BATCH)
    except StopMainLoop as error:
        raise Cancelled("Stopped") from error
    # A stop in the last steps can end quantize() without an exception.
    watch.check()
    watch.report("writing the model folder")
    model.save(str(folder))
    _keep_generation_defaults(source, folder)


def _config(recipe: Recipe) -> Any:
    from gptqmodel import QuantizeConfig

    return QuantizeConfig(
        bits=recipe.bits,
        group_size=recipe.group_size,
        desc_act=recipe.desc_act,
        act_group_aware=not recipe.desc_act,
        damp_percent=recipe.damping,
        mse=ERROR_NORM,
        sym=True,
        offload_to_disk=False,
    )


def _device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _subset_callback(watch: Watch, layers: int, stop: type[Exception]) -> Callable[..., object]:
    """Turn GPTQModel's events into steps; each layer has a few subsets of modules that share an input."""

    def callback(*, stage: str, layer_idx: int, subset_index: int, subset_total: int, **_: object) -> object:
        if watch.cancelled():
            return stop
        done = layer_idx * subset_total + subset_index + (stage == "quant_complete")
        watch.report("quantizing layers", done, layers * subset_total)
        return None

    return callback


def _keep_generation_defaults(source: Path, folder: Path) -> None:
    """GPTQModel rewrites the sampling that the model recommends; restore the original."""
    original = source / "generation_config.json"
    if original.exists():
        (folder / original.name).write_bytes(original.read_bytes())
