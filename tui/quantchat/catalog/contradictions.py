"""Holds config.json against the tensors: what does not fit together loads as noise, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from quantchat.catalog.files import JsonObject
from quantchat.catalog.problems import problem
from quantchat.catalog.safetensors import TensorInfo
from quantchat.catalog.shape import read_shape, text_config
from quantchat.domain.models import Problem, QuantSpec

WORD = 32
"""Bits of the integers that hold packed weights."""
_FLOATS = ("F16", "BF16", "F32")
_EMBEDDING = re.compile(r"^(model\.|transformer\.|language_model\.|gpt_neox\.)*(embed_tokens|wte|embed_in)\.weight$")
_LAYER = re.compile(r"^(?:model\.|transformer\.|language_model\.|gpt_neox\.|decoder\.)*(?:layers|h)\.(\d{1,6})\.")
_OTHER_WIDTHS = ("word_embed_proj_dim", "embedding_size", "hidden_size_per_layer_input", "embedding_dim")
_MORE_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")

Tensors = Mapping[str, TensorInfo]


def judge_tensors(tensors: Sequence[TensorInfo], config: JsonObject, spec: QuantSpec) -> list[Problem]:
    """Compare vocabulary, width, layers and packing with what the configs say; one problem of each sort at most."""
    by_name = {tensor.name: tensor for tensor in tensors}
    return [*_judge_embedding(tensors, config), *_judge_layers(tensors, config), *_judge_packing(by_name, spec)]


def _judge_embedding(tensors: Sequence[TensorInfo], config: JsonObject) -> Iterator[Problem]:
    shape, nested = read_shape(config), text_config(config)
    for tensor in tensors:
        if len(tensor.shape) != 2 or tensor.dtype not in _FLOATS or not _EMBEDDING.match(tensor.name):
            continue
        rows, columns = tensor.shape
        if shape.vocabulary and rows != shape.vocabulary:
            yield _contradicted("vocab_size", shape.vocabulary, tensor.name, rows)
        if shape.hidden_size and columns != shape.hidden_size and not any(key in nested for key in _OTHER_WIDTHS):
            yield _contradicted("hidden_size", shape.hidden_size, tensor.name, columns)
        return


def _contradicted(key: str, said: int, tensor: str, found: int) -> Problem:
    return problem("shape-contradicted", key=key, said=said, tensor=tensor, found=found)


def _judge_layers(tensors: Sequence[TensorInfo], config: JsonObject) -> Iterator[Problem]:
    said = read_shape(config).layers
    numbers = {int(match[1]) for tensor in tensors if (match := _LAYER.match(tensor.name))}
    if not said or not numbers or "block_configs" in config:
        return
    found = max(numbers) + 1
    if found < said or len(numbers) < min(found, said):
        yield problem("layers-missing", said=said, found=len(numbers))
    elif found > said + _extra_layers(text_config(config)):
        yield problem("layers-extra", said=said, found=found)


def _extra_layers(config: Mapping[str, object]) -> int:
    """Layers that predict further tokens stand behind the others."""
    counts = [config.get(key) for key in _MORE_LAYERS]
    return sum(count for count in counts if isinstance(count, int) and 0 < count < WORD)


def _judge_packing(tensors: Tensors, spec: QuantSpec) -> Iterator[Problem]:
    check = _CHECKS.get((spec.method, spec.checkpoint_format or ""))
    if check is None or spec.dynamic or not spec.bits:
        return
    for name, tensor in tensors.items():
        if name.endswith(".qweight") and len(tensor.shape) == 2:
            scales = tensors.get(name.removesuffix("qweight") + "scales")
            fault = check(tensor, scales, spec) if scales is not None and len(scales.shape) == 2 else ""
            if fault:
                said = f"{spec.bits} bits in groups of {spec.group_size}"
                yield problem("packing-contradicted", said=said, tensor=name, found=fault)
                return


def _gptq_fault(packed: TensorInfo, scales: TensorInfo, spec: QuantSpec) -> str:
    """`qweight` is (inputs * bits / 32, outputs), `scales` (groups, outputs)."""
    return _fault(packed.shape[0] * WORD / (spec.bits or 4), packed.shape[1], scales, spec)


def _gemm_fault(packed: TensorInfo, scales: TensorInfo, spec: QuantSpec) -> str:
    """`qweight` is (inputs, outputs * bits / 32), `scales` (groups, outputs)."""
    return _fault(packed.shape[0], packed.shape[1] * WORD / (spec.bits or 4), scales, spec)


def _fault(inputs: float, outputs: float, scales: TensorInfo, spec: QuantSpec) -> str:
    groups, columns = scales.shape
    size = spec.group_size or -1
    expected = 1 if size < 0 else -(-inputs // size)
    if outputs != columns:
        return f"{outputs:g} outputs, but scales for {columns}"
    if groups != expected:
        return f"{inputs:g} inputs in {groups} groups"
    return ""


_CHECKS = {
    ("gptq", "gptq"): _gptq_fault,
    ("gptq", "gptq_v2"): _gptq_fault,
    ("awq", "gemm"): _gemm_fault,
}
