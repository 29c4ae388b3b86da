"""GGUF file → ordinary bf16 model folder, through transformers' own GGUF reader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.quantize.watch import transformers_progress

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch


READING = "reading the GGUF file"
UNPACKING = "unpacking weights"
SAVING = "writing unpacked weights"
STAGES = {READING: 1.0, UNPACKING: 4.0, SAVING: 1.0}
"""About how long each takes beside the others."""


def convert(source: Path, folder: Path, watch: Watch) -> None:
    """Write the model, its tokenizer and its chat template into an existing empty folder.

    Args:
        source: The `.gguf` file.
        folder: Where to write.
        watch: Hears of stages and steps.
    """
    import torch
    from transformers import AutoModelForCausalLM

    watch.report(READING)
    with transformers_progress(watch, UNPACKING):
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    watch.check()
    _forget_gguf(model)
    watch.report(SAVING)
    model.save_pretrained(folder)
    _save_tokenizer(source, folder)


def _forget_gguf(model: Any) -> None:
    """Drop the marks that would make transformers save the model as still quantized."""
    model.hf_quantizer = None
    model.is_quantized = False
    for holder in (model, model.config):
        for name in ("is_quantized", "quantization_config", "quantization_method"):
            if name in vars(holder):
                delattr(holder, name)


def _save_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)
