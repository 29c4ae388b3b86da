"""A model folder as older libraries read it: links to its files, and its configs in their words.

transformers 5 writes configs that transformers 4 misreads without an error: the base of the rotary embedding falls
back to 10000, say. auto-gptq also writes into the folder that it reads. The folder itself is left alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.engine.tensors import STANDARD_FILE, STANDARD_INDEX

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
QUANTIZE_CONFIGS = ("quantize_config.json", "quant_config.json")
FAST_TOKENIZER = "PreTrainedTokenizerFast"
NEW_TOKENIZERS = "TokenizersBackend"
"""How the names begin under which transformers 5 saves what it calls a tokenizer without a class of its own."""
ROPE_KEYS = ("rope_theta", "partial_rotary_factor")

Table = dict[str, Any]


def readable(info: ModelInfo, target: Path) -> Path:
    """Fill a folder with what older libraries need of a model; return it.

    Raises:
        OSError, ValueError: if a config cannot be read.
    """
    folder = Path(info.path)
    for file in folder.iterdir():
        if file.is_file() and file.name not in (CONFIG, TOKENIZER_CONFIG, *QUANTIZE_CONFIGS):
            (target / file.name).symlink_to(file.resolve())
    _give_standard_name(target)
    _write(target / CONFIG, config_for_transformers_4(_read(folder / CONFIG), info.quant))
    if (folder / TOKENIZER_CONFIG).is_file():
        _write(target / TOKENIZER_CONFIG, tokenizer_for_transformers_4(_read(folder / TOKENIZER_CONFIG)))
    if info.quant.method == "gptq":
        _write(target / QUANTIZE_CONFIGS[0], gptq_settings(info.quant))
    return target


def _give_standard_name(folder: Path) -> None:
    weights = list(folder.glob("*.safetensors"))
    if len(weights) == 1 and not (folder / STANDARD_INDEX).exists():
        weights[0].rename(folder / STANDARD_FILE)


def config_for_transformers_4(config: Table, quant: QuantSpec) -> Table:
    """Write a model's config in the words of transformers 4; older ones stay as they are."""
    written = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    if "dtype" in config:
        written.setdefault("torch_dtype", config["dtype"])
    if isinstance(rope := config.get("rope_parameters"), dict):
        written |= _rope(rope)
    if isinstance(text := config.get("text_config"), dict):
        written["text_config"] = config_for_transformers_4(text, QuantSpec(method="none"))
    if quant.method == "awq":
        written["quantization_config"] = awq_settings(quant)
    elif quant.method == "gptq":
        written["quantization_config"] = gptq_settings(quant) | {"quant_method": "gptq"}
    return written


def _rope(parameters: Table) -> Table:
    if "full_attention" in parameters:
        found = _rope(parameters["full_attention"])
        local = parameters.get("sliding_attention") or {}
        return found | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
    found = {key: parameters[key] for key in ROPE_KEYS if key in parameters}
    if parameters.get("rope_type", "default") != "default":
        found["rope_scaling"] = {key: value for key, value in parameters.items() if key not in ROPE_KEYS}
    return found


def tokenizer_for_transformers_4(config: Table) -> Table:
    """Write a tokenizer's config in the words of transformers 4."""
    written = dict(config)
    if str(config.get("tokenizer_class", "")).startswith(NEW_TOKENIZERS):
        written["tokenizer_class"] = FAST_TOKENIZER
    if isinstance(extra := config.get("extra_special_tokens"), list):
        # There it is a table of names; a list has its old name.
        del written["extra_special_tokens"]
        written["additional_special_tokens"] = [*written.get("additional_special_tokens", []), *extra]
    return written


def gptq_settings(quant: QuantSpec) -> Table:
    """What auto-gptq asks of a folder; what newer programs add it would complain of."""
    return {
        "bits": quant.bits or 4,
        "group_size": quant.group_size or -1,
        "desc_act": bool(quant.desc_act),
        "sym": True if quant.sym is None else quant.sym,
    }


def awq_settings(quant: QuantSpec) -> Table:
    """What autoawq asks of a folder."""
    zero_point = quant.raw.get("zero_point")
    return {
        "quant_method": "awq",
        "bits": quant.bits or 4,
        "group_size": quant.group_size or 128,
        "zero_point": not quant.sym if zero_point is None else bool(zero_point),
        "version": quant.checkpoint_format or "gemm",
        "modules_to_not_convert": quant.raw.get("modules_to_not_convert"),
    }


def _read(file: Path) -> Table:
    table = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(table, dict):
        raise TypeError(f"{file.name} holds no table")
    return table


def _write(file: Path, table: Table) -> None:
    file.write_text(json.dumps(table, indent=2), encoding="utf-8")
