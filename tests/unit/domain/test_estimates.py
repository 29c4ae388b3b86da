"""What a quantization is said to take, beside what was measured of it and what must grow with what."""

from __future__ import annotations

import pytest

from quantchat.domain.estimates import Machine, Text, estimate, result_bytes
from quantchat.domain.matrices import Matrix
from quantchat.domain.memory import GIB, MIB
from quantchat.domain.quantizing import Recipe

SMOLLM2_PARAMETERS = 134_515_008
SMOLLM2_GPTQ_4_64 = 114_523_776
"""Bytes of the tensors, as GPTQModel writes them."""
TEXT = Text(64, 150)
CPU, GPU = Machine(cores=2), Machine(cores=16, gpu=True)


def layers(count: int, hidden: int, inner: int, narrow: int) -> list[Matrix]:
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, narrow),
        "self_attn.v_proj": (hidden, narrow),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    return [
        Matrix(f"model.layers.{layer}.{name}.weight", *sides)
        for layer in range(count)
        for name, sides in shapes.items()
    ]


SMOLLM2 = layers(30, 576, 1536, 192)
LLAMA_8B = layers(32, 4096, 14336, 1024)
LLAMA_8B_PARAMETERS = 8_030_261_248


def test_the_size_of_the_result_is_what_is_written() -> None:
    said = result_bytes(Recipe(group_size=64), SMOLLM2, SMOLLM2_PARAMETERS)
    assert said == pytest.approx(SMOLLM2_GPTQ_4_64, rel=0.005)


def test_memory_holds_the_model_and_the_work_on_it() -> None:
    small = estimate(Recipe(group_size=64), SMOLLM2, SMOLLM2_PARAMETERS, TEXT, CPU)
    assert 1.0 * GIB < small.host < 1.4 * GIB
    large = estimate(Recipe(group_size=128), LLAMA_8B, LLAMA_8B_PARAMETERS, TEXT, CPU)
    assert large.host > 2 * LLAMA_8B_PARAMETERS
    assert large.device == 0


def test_a_gpu_holds_a_layer_and_the_host_the_rest() -> None:
    found = estimate(Recipe(group_size=128), LLAMA_8B, LLAMA_8B_PARAMETERS, TEXT, GPU)
    assert found.device < 0.5 * found.host
    assert found.host > 2 * LLAMA_8B_PARAMETERS


def test_all_grows_with_what_it_depends_on() -> None:
    def seconds(recipe: Recipe, text: Text = TEXT, machine: Machine = CPU) -> float:
        return estimate(recipe, SMOLLM2, SMOLLM2_PARAMETERS, text, machine).seconds

    recipe = Recipe(group_size=64)
    assert seconds(recipe) < seconds(recipe, Text(640, 150))
    assert seconds(recipe, machine=Machine(cores=8)) < seconds(recipe)
    assert seconds(recipe, machine=GPU) < seconds(recipe)
    assert seconds(recipe) < seconds(Recipe(method="awq", group_size=64))


def test_copies_on_the_way_are_counted() -> None:
    recipe = Recipe(group_size=64)
    plain = estimate(recipe, SMOLLM2, SMOLLM2_PARAMETERS, TEXT, CPU)
    merged = estimate(recipe, SMOLLM2, SMOLLM2_PARAMETERS, TEXT, CPU, copies=2)
    assert merged.disk - plain.disk == 4 * SMOLLM2_PARAMETERS
    assert plain.disk - plain.result < GIB
    assert plain.result > 64 * MIB


def test_a_model_of_which_nothing_is_known_is_no_error() -> None:
    found = estimate(Recipe(), [], 0, Text(0, 0.0), CPU)
    assert (found.result, found.device) == (0, 0)
