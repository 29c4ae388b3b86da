"""Holds config.json against the tensors: what does not fit together loads as noise, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from quantchat.catalog.files import JsonObject
from quantchat.catalog.groups import Group
from quantchat.catalog.problems import problem
from quantchat.catalog.shape import read_shape, text_config
from quantchat.domain.models import Problem, QuantSpec

Sizes = tuple[int, ...]

WORD = 32
"""Bits of the integers that hold packed weights."""
_FLOATS = ("F16", "BF16", "F32")
_EMBEDDING = re.compile(r"^(model\.|transformer\.|language_model\.|gpt_neox\.)*(embed_tokens|wte|embed_in)\.weight$")
_LAYER = re.compile(r"^(?:model\.|transformer\.|language_model\.|gpt_neox\.|decoder\.)*(?:layers|h)\.(\d{1,6})\.")
_LAYERS = re.compile(r"^(?:model\.|transformer\.|language_model\.|gpt_neox\.|decoder\.)*(?:layers|h)\.\.")
_OTHER_WIDTHS = ("word_embed_proj_dim", "embedding_size", "hidden_size_per_layer_input", "embedding_dim")
_MORE_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")


def judge_tensors(groups: Sequence[Group], config: JsonObject, spec: QuantSpec) -> list[Problem]:
    """Compare vocabulary, width, layers and packing with what the configs say; one problem of each sort at most."""
    return [*_judge_embedding(groups, config), *_judge_layers(groups, config), *_judge_packing(groups, spec)]


def _judge_embedding(groups: Sequence[Group], config: JsonObject) -> Iterator[Problem]:
    shape, nested = read_shape(config), text_config(config)
    for group in groups:
        if len(group.shape) != 2 or group.dtype not in _FLOATS or not _EMBEDDING.match(group.pattern):
            continue
        name, (rows, columns) = group.tensors[0].name, group.shape
        if shape.vocabulary and rows != shape.vocabulary:
            yield _contradicted("vocab_size", shape.vocabulary, name, rows)
        if shape.hidden_size and columns != shape.hidden_size and not any(key in nested for key in _OTHER_WIDTHS):
            yield _contradicted("hidden_size", shape.hidden_size, name, columns)
        return


def _contradicted(key: str, said: int, tensor: str, found: int) -> Problem:
    return problem("shape-contradicted", key=key, said=said, tensor=tensor, found=found)


def _judge_layers(groups: Sequence[Group], config: JsonObject) -> Iterator[Problem]:
    said, numbers = read_shape(config).layers, _layer_numbers(groups)
    if not said or not numbers or "block_configs" in config:
        return
    found = max(numbers) + 1
    if found < said or len(numbers) < min(found, said):
        yield problem("layers-missing", said=said, found=len(numbers))
    elif found > said + _extra_layers(text_config(config)):
        yield problem("layers-extra", said=said, found=found)


def _layer_numbers(groups: Sequence[Group]) -> set[int]:
    """Return the numbers of the layers; every layer has vectors, such as those of its norms, so these will do."""
    inside = [group for group in groups if _LAYERS.match(group.pattern)]
    vectors = [group for group in inside if len(group.shape) == 1] or inside
    places = {group.beginnings for group in vectors}
    return {int(match[1]) for names in places for name in names.split("\n") if (match := _LAYER.match(name))}


def _extra_layers(config: Mapping[str, object]) -> int:
    """Layers that predict further tokens stand behind the others."""
    counts = [config.get(key) for key in _MORE_LAYERS]
    return sum(count for count in counts if isinstance(count, int) and 0 < count < WORD)


def _judge_packing(groups: Sequence[Group], spec: QuantSpec) -> Iterator[Problem]:
    check = _CHECKS.get((spec.method, spec.checkpoint_format or ""))
    if check is None or spec.dynamic or not spec.bits:
        return
    scales = {group.pattern: group for group in groups if group.pattern.endswith(".scales") and len(group.shape) == 2}
    for group in groups:
        beside = scales.get(group.pattern.removesuffix("qweight") + "scales")
        if beside is None or not group.pattern.endswith(".qweight") or len(group.shape) != 2:
            continue
        if fault := check(group.shape, beside.shape, spec):
            said = f"{spec.bits} bits in groups of {spec.group_size}"
            yield problem("packing-contradicted", said=said, tensor=group.tensors[0].name, found=fault)
            return


def _gptq_fault(packed: Sizes, scales: Sizes, spec: QuantSpec) -> str:
    """`qweight` is (inputs * bits / 32, outputs), `scales` (groups, outputs)."""
    return _fault(packed[0] * WORD / (spec.bits or 4), packed[1], scales, spec)


def _gemm_fault(packed: Sizes, scales: Sizes, spec: QuantSpec) -> str:
    """`qweight` is (inputs, outputs * bits / 32), `scales` (groups, outputs)."""
    return _fault(packed[0], packed[1] * WORD / (spec.bits or 4), scales, spec)


def _fault(inputs: float, outputs: float, scales: Sizes, spec: QuantSpec) -> str:
    groups, columns = scales
    size = spec.group_size or -1
    expected = 1 if size < 0 else -(-inputs // size)
    if outputs != columns:
        return f"{outputs:g} outputs, but scales for {columns}"
    if groups != expected:
        return f"{inputs:g} inputs in {groups} groups"
    return ""


_CHECKS: Mapping[tuple[str, str], Callable[[Sizes, Sizes, QuantSpec], str]] = {
    ("gptq", "gptq"): _gptq_fault,
    ("gptq", "gptq_v2"): _gptq_fault,
    ("awq", "gemm"): _gemm_fault,
}
