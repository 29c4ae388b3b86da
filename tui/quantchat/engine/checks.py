"""What a load is checked by: the tensors on disk, the modules in memory, and one forward pass.

Several formats load random weights without an error, so nothing here trusts the loader's word.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from gptqmodel.nn_modules.qlinear import BaseQuantLinear

from quantchat.domain.models import ModelInfo
from quantchat.engine import memory
from quantchat.engine.kvproof import reuse_fault
from quantchat.engine.tensors import DAMAGED_REMEDY
from quantchat.errors import LoadError

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

logger = logging.getLogger(__name__)

PACKED = (
    ".qweight", ".qzeros", ".scales", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_g_idx",
)  # fmt: skip
WARM_UP = "The capital of France is"
SAME, ALIKE = 0.98, 0.9
"""Cosine of two logit vectors, each less its mean, from which they count as the same; with the same best token, alike.

The cached step sums the same products in another order, and float16 and bfloat16 keep 11 and 8 bits: some percent of
difference after many layers, and another best token where two are tied. A cache that is used wrongly (lost prefix,
shifted positions) gives the logits of another text, whose cosine is far lower.
"""


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
        _refuse("The model has weights that are not in its files", _not_on_disk(model, names))
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
    _refuse("Some weights were never filled", [name for name, tensor in _tensors(model) if tensor.is_meta])


def _check_loading_info(loading: dict[str, Any], *, allow_default_order: bool) -> None:
    unexpected = [name for name in loading.get("unexpected_keys", ()) if name.endswith(PACKED)]
    _refuse("The model has packed weights that the loader did not use", unexpected)
    # Without act-order the group index is 0, 0, ..., 1, 1, ...: early checkpoints do not store it.
    missing = [n for n in loading.get("missing_keys", ()) if not (allow_default_order and n.endswith(".g_idx"))]
    _refuse("The model's files lack weights", missing)
    _refuse("Weights have the wrong shape", [str(key) for key in loading.get("mismatched_keys", ())])
    _refuse("Weights could not be read", [str(message) for message in loading.get("error_msgs", ())])


def _refuse(title: str, names: Iterable[str]) -> None:
    found = sorted(names)
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise LoadError(title, f"{shown}. The model would answer with random text.", DAMAGED_REMEDY)


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


@dataclass(frozen=True)
class Proof:
    """What the warm-up showed.

    Attributes:
        fault: Why the model cannot be served by our own loop; empty if it can.
        kv_token_bytes: Bytes that a token adds to the KV cache; 0 if nothing grows with the text.
    """

    fault: str = ""
    kv_token_bytes: int = 0


def warm_up(model: Any, tokenizer: Any, device: str, new_cache: Callable[[], SessionCache]) -> Proof:
    """Run one forward pass, which also packs the weights on the CPU, judge its logits, and repeat it with a cache.

    Raises:
        LoadError: if the logits are not numbers, or the same for every token.
    """
    known = model.get_input_embeddings().num_embeddings
    ids = [token for token in tokenizer(WARM_UP)["input_ids"] if token < known]
    ids = ids if len(ids) > 1 else [0, 1, 2]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1].float()
        if not bool(torch.isfinite(logits).all()):
            raise LoadError("The model computes no numbers", "The warm-up gave NaN or infinite logits.", DAMAGED_REMEDY)
        if float(logits.max() - logits.min()) == 0.0:
            raise LoadError("The model says the same of every word", "The warm-up gave equal logits.", DAMAGED_REMEDY)
        return _prove_cache(model, new_cache, ids, logits)


def _prove_cache(model: Any, new_cache: Callable[[], SessionCache], ids: list[int], expected: Any) -> Proof:
    """Compute all tokens but the last into a cache, the last one from it, and compare the logits with uncached ones."""
    try:
        cache = new_cache()
        for part in (ids[:-1], ids[-1:]):
            inputs = torch.tensor([part], device=expected.device)
            output = model(input_ids=inputs, use_cache=True, **cache.arguments)
            cache.append(part)
        found = output.logits[0, -1].float()
        fault = _difference(found, expected) or reuse_fault(model, new_cache, ids, expected.device)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise
        logger.exception("the model does not take our cache")
        return Proof(fault=f"its KV cache failed in the warm-up: {type(error).__name__}: {str(error)[:200]}")
    return Proof(fault=fault, kv_token_bytes=_growth(cache.cache, len(ids)))


def _difference(found: Any, expected: Any) -> str:
    if not bool(torch.isfinite(found).all()):
        return "the warm-up gave NaN or infinite logits with a KV cache"
    likeness = float(torch.cosine_similarity(found - found.mean(), expected - expected.mean(), dim=0))
    if likeness >= SAME or (likeness >= ALIKE and int(found.argmax()) == int(expected.argmax())):
        return ""
    return f"the warm-up gave other logits with a KV cache than without (cosine {likeness:.2f})"


def _growth(cache: Any, tokens: int) -> int:
    """Bytes per token of the layers whose keys and values grow with the text."""
    total = 0
    for layer in getattr(cache, "layers", ()):
        states = [
            state for state in (getattr(layer, "keys", None), getattr(layer, "values", None)) if state is not None
        ]
        if states and not getattr(layer, "is_sliding", False) and states[0].shape[-2] == tokens:
            total += sum(state.numel() * state.element_size() for state in states)
    return total // tokens


def all_finite(model: Any) -> bool:
    """Whether every stored floating-point number is finite: tells damaged weights from a broken kernel."""
    return all(bool(torch.isfinite(tensor).all()) for _, tensor in _tensors(model) if tensor.is_floating_point())
