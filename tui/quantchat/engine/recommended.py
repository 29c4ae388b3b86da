"""What a model's own `generation_config.json` asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from transformers import GenerationConfig

from quantchat.domain.generation import SamplingOverrides
from quantchat.engine import prompt

RECOMMENDABLE = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")


def take_generation_defaults(model: Any, tokenizer: Any, folder: Path) -> tuple[SamplingOverrides, frozenset[int]]:
    """Read the recommended sampling and the tokens that end an answer, then clear them in the model.

    A turn says everything itself.
    """
    values = _read_json(folder / "generation_config.json")
    ends = [values.get("eos_token_id"), model.generation_config.eos_token_id, tokenizer.eos_token_id]
    if prompt.template_name(tokenizer) == prompt.FALLBACK:
        ends.append(tokenizer.get_vocab().get(prompt.CHATML_END))
    flat = [token for end in ends for token in (end if isinstance(end, list) else [end])]
    model.generation_config = GenerationConfig()
    return _recommended(values), frozenset(token for token in flat if isinstance(token, int))


def _recommended(values: dict[str, Any]) -> SamplingOverrides:
    wanted = {name: values[name] for name in RECOMMENDABLE if name in values}
    if values.get("do_sample") is False:
        wanted = {"temperature": 0.0} | {k: v for k, v in wanted.items() if k == "repetition_penalty"}
    try:
        return msgspec.convert(wanted, SamplingOverrides)
    except msgspec.ValidationError:
        return SamplingOverrides()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
