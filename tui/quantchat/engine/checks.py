"""What a load is checked by: the tensors on disk, the modules in memory, and one forward pass.

Several formats load random weights without an error, so nothing here trusts the loader's word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from gptqmodel.nn_modules.qlinear import BaseQuantLinear

from quantchat.domain.models import ModelInfo
from quantchat.engine.tensors import refuse
from quantchat.engine.warmup import Proof as Proof
from quantchat.engine.warmup import warm_up as warm_up
from quantchat.errors import LoadError

PACKED = (
    ".qweight", ".qzeros", ".scales", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_g_idx",
)  # fmt: skip


def quantized_modules(model: Any) -> dict[str, Any]:
    """Return the modules that multiply by packed weights, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseQuantLinear)}


def kernel_counts(model: Any) -> dict[str, int]:
    """Count linear modules per class; embeddings and the like are left out."""
    kinds = (torch.nn.Linear, BaseQuantLinear)
    return dict(Counter(type(module).__name__ for module in model.modules() if isinstance(module, kinds)))


def check_weights(model: Any, info: ModelInfo, names: frozenset[str], loading: dict[str, Any] | None) -> None:
    """Compare what is on disk with what is in memory.

    Args:
        model: The network, before its first forward pass.
        info: What the catalog says of it.
        names: Tensors on disk.
        loading: transformers' loading info; None after a load through GPTQModel, which gives none.

    Raises:
        LoadError: if weights were not used, were not found, or do not match.
    """
    if loading is not None:
        _check_loading_info(loading, allow_default_order=not info.quant.desc_act)
    else:
        refuse("The model has weights that are not in its files", _not_on_disk(model, names))
    on_disk = sum(name.endswith(".qweight") for name in names)
    in_memory = len(quantized_modules(model))
    if info.quant.method in ("gptq", "awq") and not in_memory:
        raise LoadError(
            "The model is not quantized after all", "None of its modules took packed weights.", "Get a whole copy."
        )
    if on_disk != in_memory:
        raise LoadError(
            "The packed weights did not all load",
            f"{on_disk} matrices on disk, {in_memory} in the model; the rest would be random.",
            "This architecture or packing is not supported in this form; try another version of the model.",
        )
    refuse("Some weights were never filled", [name for name, tensor in _tensors(model) if tensor.is_meta])


def _check_loading_info(loading: dict[str, Any], *, allow_default_order: bool) -> None:
    unexpected = [name for name in loading.get("unexpected_keys", ()) if name.endswith(PACKED)]
    refuse("The model has packed weights that the loader did not use", unexpected)
    # Without act-order the group index is 0, 0, ..., 1, 1, ...: early checkpoints do not store it.
    missing = [n for n in loading.get("missing_keys", ()) if not (allow_default_order and n.endswith(".g_idx"))]
    refuse("The model's files lack weights", missing)
    refuse("Weights have the wrong shape", [str(key) for key in loading.get("mismatched_keys", ())])
    refuse("Weights could not be read", [str(message) for message in loading.get("error_msgs", ())])


def _tensors(model: Any) -> Iterable[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _not_on_disk(model: Any, names: frozenset[str]) -> list[str]:
    """Parameters outside the packed modules with no tensor on disk, tied ones counted once."""
    packed = tuple(f"{name}." for name in quantized_modules(model))
    tied: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not name.startswith(packed):
            tied.setdefault(parameter.data_ptr(), []).append(name)
    return [group[0] for group in tied.values() if not names.intersection(group)]


def all_finite(model: Any) -> bool:
    """Whether every stored floating-point number is finite: tells damaged weights from a broken kernel."""
    return all(bool(torch.isfinite(tensor).all()) for _, tensor in _tensors(model) if tensor.is_floating_point())
