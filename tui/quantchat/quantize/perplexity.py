"""Perplexity of a model folder on a text: exp of the mean negative log likelihood per token."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantchat.errors import JobError
from quantchat.quantize.watch import transformers_progress

if TYPE_CHECKING:
    from quantchat.quantize.watch import Watch

HELD_OUT = Path(__file__).with_name("data") / "heldout.txt"
"""Text in none of the calibration samples; written for quantchat, under its licence (MIT)."""
WINDOW = 512


class Perplexity(msgspec.Struct, frozen=True):
    """A measurement; `tokens` is the number of predicted tokens."""

    perplexity: float
    tokens: int


def evaluate(folder: Path, text: str, watch: Watch) -> Perplexity:
    """Load a folder on the CPU in bf16 and measure it.

    Raises:
        JobError: if the text is too short.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with transformers_progress(watch, "reading weights"):
        model = AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": "cpu"}, dtype=torch.bfloat16, **_kernel(folder)
        )
    return measure(model, list(tokenizer(text)["input_ids"]), watch)


def _kernel(folder: Path) -> dict[str, Any]:
    """Ask for the 4-bit kernel that needs no compiling; the weights, and so the figure, are the same."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") != "gptq" or quantization.get("bits") != 4:
        return {}
    from transformers import GPTQConfig

    return {"quantization_config": GPTQConfig(bits=4, backend="gptq_torch_aten")}


def measure(model: Any, ids: list[int], watch: Watch, window: int = WINDOW) -> Perplexity:
    """Average the negative log likelihood over windows that do not overlap.

    Args:
        model: A causal language model of transformers.
        ids: The text as token ids.
        watch: Hears of each window.
        window: Tokens per window. The first token of each has nothing before it and is not predicted.

    Raises:
        JobError: if there is no token to predict.
    """
    starts = [start for start in range(0, len(ids), window) if len(ids) - start > 1]
    if not starts:
        raise JobError("The text is too short to measure", "it has fewer than two tokens")
    total, tokens = 0.0, 0
    for start in watch.each(starts, "measuring perplexity", len(starts)):
        piece = ids[start : start + window]
        total += _negative_log_likelihood(model, piece)
        tokens += len(piece) - 1
    return Perplexity(math.exp(total / tokens), tokens)


def _negative_log_likelihood(model: Any, ids: list[int]) -> float:
    """Sum over the tokens after the first, computed in float32."""
    import torch

    batch = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        logits = model(batch, use_cache=False).logits[0, :-1].float()
        return float(torch.nn.functional.cross_entropy(logits, batch[0, 1:], reduction="sum"))
