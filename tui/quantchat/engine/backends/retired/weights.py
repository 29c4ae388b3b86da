"""Whether the weights of a folder are in the model: older libraries leave out some, or all, without an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from quantchat.engine.tensors import refuse, weight_files

PACKED = (".qweight", ".qzeros", ".scales", ".g_idx")
"""What kernels pack again once they are loaded."""
FILLED_BY_DEFAULT = (".bias", ".g_idx")
"""What a packed module has of its own: auto-gptq gives every one a bias, and the group index of no act-order."""
COMPUTED = "inv_freq"
"""In old folders; every version of transformers computes it."""
SAMPLE = 4096


def packed_modules(model: Any) -> dict[str, Any]:
    """Return the modules that multiply by packed weights, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "qweight")}


def fill(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Copy all weights of a folder into the modules that are there for them.

    Raises:
        RuntimeError: if a tensor has another shape than its place.
    """
    for module in packed_modules(model).values():
        for name in ("scales", "bias"):
            # Made in float16, whatever the activations are.
            if (tensor := getattr(module, name, None)) is not None:
                setattr(module, name, tensor.to(dtype))
    for file in weight_files(folder):
        model.load_state_dict(load_file(file), strict=False)
    model.tie_weights()


def check(model: Any, folder: Path) -> None:
    """Compare what is on disk with what is in memory, names and values.

    Raises:
        LoadError: if weights were not used, were not found or are others.
    """
    state = model.state_dict(keep_vars=True)
    on_disk = {name for file in weight_files(folder) for name in _names(file)}
    refuse("Some weights were never filled", [name for name, tensor in state.items() if tensor.is_meta])
    refuse("The model's files lack weights", _lacking(model, state, on_disk))
    unused = [name for name in on_disk - state.keys() if not name.endswith(COMPUTED) and not _tied(model, name)]
    refuse("The model has weights that the loader did not use", unused)
    refuse("Weights in memory are not those of the files", _differing(state, folder))


def _names(file: Path) -> list[str]:
    with safe_open(str(file), framework="pt") as opened:
        return list(opened.keys())


def _lacking(model: Any, state: dict[str, Any], on_disk: set[str]) -> Iterator[str]:
    packed = packed_modules(model)
    there = {tensor.data_ptr() for name, tensor in state.items() if name in on_disk}
    for name, tensor in state.items():
        by_default = name.endswith(FILLED_BY_DEFAULT) and name.rpartition(".")[0] in packed
        if not (name in on_disk or by_default or tensor.data_ptr() in there):
            yield name


def _tied(model: Any, name: str) -> bool:
    """Whether a tensor is a copy of one that the model shares and knows by another name."""
    return name in (getattr(model, "_tied_weights_keys", None) or ())


def _differing(state: dict[str, Any], folder: Path) -> Iterator[str]:
    for file in weight_files(folder):
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name in state and not name.endswith(PACKED) and not _same(opened.get_tensor(name), state[name]):
                    yield name


def _same(stored: Any, loaded: Any) -> bool:
    """Compare some numbers of the two, spread over them."""
    if stored.shape != loaded.shape:
        return False
    step = max(1, stored.numel() // SAMPLE)
    same: bool = torch.equal(stored.reshape(-1)[::step].to(loaded.dtype), loaded.detach().reshape(-1)[::step].cpu())
    return same
