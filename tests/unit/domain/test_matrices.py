"""Which tensors are quantized, by the names and shapes that checkpoints of several families have."""

from __future__ import annotations

import pytest

from quantchat.domain.matrices import Matrix, quantizable

FAMILIES = {
    "llama": (
        [
            ("model.embed_tokens.weight", (1000, 64)),
            ("model.layers.0.self_attn.q_proj.weight", (64, 64)),
            ("model.layers.0.self_attn.q_proj.bias", (64,)),
            ("model.layers.0.mlp.down_proj.weight", (64, 96)),
            ("model.layers.0.input_layernorm.weight", (64,)),
            ("model.norm.weight", (64,)),
            ("lm_head.weight", (1000, 64)),
        ],
        {("q_proj", 64, 64, 1), ("down_proj", 96, 64, 1)},
    ),
    "gpt2, inputs first": (
        [("h.3.attn.c_attn.weight", (64, 192)), ("h.3.ln_1.weight", (64,)), ("wte.weight", (1000, 64))],
        {("c_attn", 64, 192, 1)},
    ),
    "experts in one tensor, and their router": (
        [
            ("model.layers.1.mlp.gate.weight", (32, 64)),
            ("model.layers.1.mlp.experts.gate_up_proj", (32, 96, 64)),
            ("model.layers.1.mlp.experts.down_proj", (32, 64, 48)),
        ],
        {("gate_up_proj", 64, 96, 32), ("down_proj", 48, 64, 32)},
    ),
    "experts one by one": (
        [
            ("model.layers.1.mlp.experts.7.w1.weight", (96, 64)),
            ("model.layers.1.mlp.shared_expert_gate.weight", (1, 64)),
        ],
        {("w1", 64, 96, 1)},
    ),
    "a model that sees": (
        [
            ("model.visual.blocks.0.attn.qkv.weight", (192, 64)),
            ("vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", (64, 64)),
            ("model.language_model.layers.0.self_attn.q_proj.weight", (64, 64)),
        ],
        {("q_proj", 64, 64, 1)},
    ),
}


def described(matrix: Matrix) -> tuple[str, int, int, int]:
    return matrix.name.removesuffix(".weight").rpartition(".")[2], matrix.inputs, matrix.outputs, matrix.count


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_of_the_layers_are_found(family: str) -> None:
    tensors, expected = FAMILIES[family]
    assert {described(matrix) for matrix in quantizable(tensors)} == expected


def test_the_output_head_comes_with_them_if_it_is_wanted() -> None:
    tensors, _ = FAMILIES["llama"]
    assert [described(matrix)[0] for matrix in quantizable(tensors, lm_head=True)][-1] == "lm_head"


def test_parameters_count_all_experts() -> None:
    assert Matrix("experts", 48, 64, 32).parameters == 48 * 64 * 32
