"""A GPTQ checkpoint without act-order as AWQ: the same integers, zero points and scales in the other packing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from gpu.checkpoints import WORD, Matrix, Recipe, packed

CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def as_awq(gptq: Path, folder: Path) -> Path:
    """Write a GPTQ model of 4 bits, first checkpoint format, as an AWQ model."""
    folder.mkdir()
    for name in CONFIGS:
        shutil.copy(gptq / name, folder)
    config = json.loads((gptq / "config.json").read_bytes())
    recipe = Recipe("awq", method="awq", group_size=config["quantization_config"]["group_size"])
    config["quantization_config"] = recipe.quantization()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_repacked(load_file(gptq / "model.safetensors"), recipe), folder / "model.safetensors", {"format": "pt"})
    return folder


def _repacked(tensors: dict[str, torch.Tensor], recipe: Recipe) -> dict[str, torch.Tensor]:
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    parts = {f"{name}.{part}" for name in names for part in ("qweight", "qzeros", "scales", "g_idx")}
    found = {name: tensor for name, tensor in tensors.items() if name not in parts}
    for name in names:
        found |= packed(recipe, name, _unpacked(tensors, name, recipe))
    return found


def _unpacked(tensors: dict[str, torch.Tensor], name: str, recipe: Recipe) -> Matrix:
    groups = tensors[f"{name}.g_idx"]
    in_order = torch.arange(len(groups)) // recipe.group_size
    assert torch.equal(groups.long(), in_order), f"{name} has act-order, which AWQ cannot hold"
    integers = _split(tensors[f"{name}.qweight"].T, recipe.bits).T
    zeros = _split(tensors[f"{name}.qzeros"], recipe.bits) + 1
    return Matrix(integers.contiguous(), zeros, tensors[f"{name}.scales"].half(), groups)


def _split(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Take the integers of each word apart, lowest bits first."""
    shifts = torch.arange(0, WORD, bits, dtype=torch.int32)
    return (words.unsqueeze(-1) >> shifts & (2**bits - 1)).flatten(1).int()
