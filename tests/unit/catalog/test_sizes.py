"""Tensors sorted by what a load makes of them, and the bytes that each kernel makes of a Llama 3 8B."""

from __future__ import annotations

import pytest

from quantchat.catalog.fit import Setting, parts_of, weight_bytes
from quantchat.catalog.groups import group
from quantchat.catalog.repacking import repacking
from quantchat.catalog.sizes import is_tied
from quantchat.domain.kernel_table import TABLE
from quantchat.domain.models import LayerRun, ModelInfo, Pieces, QuantSpec, WeightSizes
from unit.catalog.real_shapes import LLAMA_3_8B, llama_tensors, tensor, weighed

GPTQ = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq")
PLAIN = QuantSpec(method="none")
KERNELS = {kernel.name: kernel for kernel in TABLE}

NORMS, EMBEDDING = 2 * 4096, 128256 * 4096
PACKED, SCALES, ZEROS, ORDER = 109_051_904, 1_703_936, 851_968, 155_648
"""Of one layer: 218,103,808 weights at 4 bits, one scale for 128, zero points of 4 bits, 38,912 inputs of 4 bytes."""


@pytest.fixture(scope="module")
def llama() -> ModelInfo:
    return ModelInfo(
        path="/m", name="m", quant=GPTQ, weights=weighed(llama_tensors(LLAMA_3_8B, bits=4), GPTQ, LLAMA_3_8B)
    )


def test_the_layers_of_a_packed_llama(llama: ModelInfo) -> None:
    layer = Pieces(floats=NORMS, packed_weights=218_103_808, packed=PACKED, scales=SCALES, zeros=ZEROS, order=ORDER)
    assert llama.weights == WeightSizes(
        prefix="model.layers",
        layers=(LayerRun(32, layer),),
        inputs=Pieces(floats=EMBEDDING),
        outputs=Pieces(floats=EMBEDDING + 4096),
        matrices=((4096, 1024), (4096, 4096), (4096, 14336), (14336, 4096)),
        largest=4096 * 14336,
        widest=14336,
    )


@pytest.mark.parametrize(
    ("kernel", "layer"),
    [
        ("gptq_marlin", PACKED + 2 * SCALES),
        ("gptq_exllama_v2", PACKED + 2 * SCALES + ZEROS + ORDER),
        ("gptq_triton", PACKED + 2 * SCALES + ZEROS + ORDER),
        ("gptq_torch_cpu_avx512", PACKED + 4 * SCALES + SCALES + 2 * ORDER),
        ("gptq_torch_aten", PACKED + 8 * SCALES + 2 * ORDER),
        ("gptq_torch_int8", 2 * PACKED),
    ],
)
def test_bytes_that_a_kernel_keeps(llama: ModelInfo, kernel: str, layer: int) -> None:
    ends = 2 * (2 * EMBEDDING + 4096)
    assert weight_bytes(llama, Setting(kernel=KERNELS[kernel])) == 32 * (layer + 2 * NORMS) + ends


def test_act_order_keeps_its_order_in_marlin(llama: ModelInfo) -> None:
    marlin = Setting(device="cuda", kernel=KERNELS["gptq_marlin"])
    sorted_by = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=True, sym=True)
    ordered = ModelInfo(path="/m", name="m", quant=sorted_by, weights=llama.weights)
    assert weight_bytes(ordered, marlin) - weight_bytes(llama, marlin) == 32 * 2 * ORDER


def test_exllama_keeps_a_gigabyte_beside_them(llama: ModelInfo) -> None:
    scratch = repacking(KERNELS["gptq_exllama_v2"]).workspace(llama.weights.largest, llama.weights.widest)
    assert scratch == 4096 * 14336 * 2 + 14336 * 2048 * 8 * 4


def test_unquantized_weights_take_16_bits_whatever_they_have_on_disk() -> None:
    config = LLAMA_3_8B | {"num_hidden_layers": 2}
    sizes = {
        weight_bytes(ModelInfo(path="/m", name="m", weights=weighed(tensors, PLAIN, config)), Setting())
        for tensors in (llama_tensors(config, dtype="F32"), llama_tensors(config, dtype="BF16"))
    }
    assert sizes == {2 * (2 * (218_103_808 + NORMS) + 2 * EMBEDDING + 4096)}


def test_a_tied_head_on_disk_is_not_loaded() -> None:
    config = LLAMA_3_8B | {"num_hidden_layers": 1, "tie_word_embeddings": True}
    tensors = llama_tensors(config)
    assert weighed(tensors, PLAIN, config).outputs == Pieces(floats=4096)
    assert is_tied(config, group(tensors))
    assert not is_tied(LLAMA_3_8B, group(tensors))
    assert is_tied({}, group([each for each in tensors if each.name != "lm_head.weight"]))


def test_parts_that_transformers_leaves_on_disk() -> None:
    config = {"num_hidden_layers": 1}
    tensors = [
        tensor("model.layers.0.self_attn.q_proj.weight", "F16", 8, 8),
        tensor("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 4),
        tensor("model.layers.1.eh_proj.weight", "F16", 8, 8),
        tensor("mtp.layers.0.mlp.weight", "F16", 8, 8),
    ]
    assert weighed(tensors, PLAIN, config) == WeightSizes(
        prefix="model.layers", layers=(LayerRun(1, Pieces(floats=64)),), widest=8
    )


def test_image_towers_come_before_the_layers_and_experts_count_as_often_as_they_are_asked() -> None:
    tensors = [
        tensor("vision_tower.encoder.layers.0.mlp.weight", "F16", 4, 4),
        *(tensor(f"model.layers.0.mlp.experts.{n}.up_proj.weight", "F16", 10, 8) for n in range(4)),
    ]
    sizes = weighed(tensors, PLAIN, {"num_experts_per_tok": 3})
    assert sizes.inputs == Pieces(floats=16)
    assert sizes.layers == (LayerRun(1, Pieces(floats=320)),)
    assert sizes.widest == 30


def test_integers_keep_their_bytes() -> None:
    assert weighed([tensor("model.table", "I64", 4)], PLAIN, {}).outputs == Pieces(other=32)


def test_formats_that_are_unpacked_count_their_weights_in_16_bits() -> None:
    packed = QuantSpec(method="compressed-tensors", bits=4, group_size=32)
    tensors = [
        tensor("model.layers.0.mlp.up_proj.weight_packed", "I32", 8, 4),
        tensor("model.layers.0.mlp.up_proj.weight_scale", "BF16", 8, 1),
        tensor("model.norm.weight", "BF16", 8),
    ]
    sizes = weighed(tensors, packed, {})
    assert sizes.layers == (LayerRun(1, Pieces(floats=8 * 32)),)
    assert sizes.outputs == Pieces(floats=8)
    fp8 = [tensor("model.layers.0.q.weight", "F8_E4M3", 8, 8), tensor("model.layers.0.q.weight_scale_inv", "F32", 1, 1)]
    assert weighed(fp8, QuantSpec(method="fp8"), {}).layers == (LayerRun(1, Pieces(floats=64)),)
    blocks = [
        tensor("model.layers.0.mlp.experts.down_proj_blocks", "U8", 2, 4, 1, 16),
        tensor("model.layers.0.mlp.experts.down_proj_scales", "U8", 2, 4, 1),
    ]
    assert weighed(blocks, QuantSpec(method="mxfp4"), {}).layers == (LayerRun(1, Pieces(floats=2 * 4 * 32)),)


def test_layers_for_a_placement(llama: ModelInfo) -> None:
    parts = parts_of(llama, Setting(device="cuda", kernel=KERNELS["gptq_marlin"]))
    assert len(parts.layers) == 32
    assert parts.total == weight_bytes(llama, Setting(device="cuda", kernel=KERNELS["gptq_marlin"]))
