"""KV cache per token and conversation, against figures worked out by hand from the models' papers and configs."""

from __future__ import annotations

from typing import Any

import pytest

from quantchat.catalog.attention import read_attention
from quantchat.catalog.shape import read_shape
from quantchat.domain.memory import cache_bytes, kv_bytes_per_token
from quantchat.domain.models import AttentionSpec, ModelInfo
from unit.catalog import real_shapes as real


def model(config: dict[str, Any]) -> ModelInfo:
    return ModelInfo(path="/m", name="m", shape=read_shape(config), attention=read_attention(config))


@pytest.mark.parametrize(
    ("config", "per_token", "of_8192"),
    [
        # 2 x 32 layers x 8 heads x 128 x 2 bytes
        (real.LLAMA_3_8B, 131_072, 1_073_741_824),
        # 2 x 28 x 4 x 128 x 2; the window is switched off
        (real.QWEN_2_5_7B, 57_344, 469_762_048),
        # 4 heads x 256: 5 full layers of 34, 29 that keep 1,023 tokens
        (real.GEMMA_3_4B, 20_480, 167_772_160 + 121_516_032),
        # all layers keep 4,095 tokens
        (real.MISTRAL_7B, 0, 536_739_840),
        (real.MIXTRAL_8X7B, 131_072, 1_073_741_824),
        # (512 compressed + 64 rotated) x 27 x 2
        (real.DEEPSEEK_V2_LITE, 31_104, 254_803_968),
        # 12 full layers x 2 x 2 heads x 256 x 2; 36 states of 32 x 128 x 128 floats and 4 x 8,192 numbers
        (real.QWEN3_NEXT_80B, 24_576, 201_326_592 + 75_497_472 + 2_359_296),
        # 2 x 32 heads x 96: all layers keep 2,046 tokens
        (real.PHI_3_MINI_4K, 0, 804_519_936),
        # one pair of heads for all 71
        (real.FALCON_7B, 8_192, 67_108_864),
    ],
    ids=["llama-3", "qwen-2.5", "gemma-3", "mistral", "mixtral", "deepseek-v2", "qwen3-next", "phi-3", "falcon"],
)
def test_bytes_of_real_models(config: dict[str, Any], per_token: int, of_8192: int) -> None:
    assert kv_bytes_per_token(model(config)) == per_token
    assert cache_bytes(model(config), 8192) == of_8192


def test_mla_says_what_it_expands() -> None:
    """16 heads of 2 x 128 + 64 + 128 numbers."""
    assert read_attention(real.DEEPSEEK_V2_LITE).expanded_values == 7168


def test_windows_that_are_not_full_cost_as_much_as_full_attention() -> None:
    assert cache_bytes(model(real.MISTRAL_7B), 1000) == cache_bytes(model(real.MIXTRAL_8X7B), 1000)


def test_a_quarter_of_the_bytes_in_four_bits() -> None:
    whole, quarter = cache_bytes(model(real.LLAMA_3_8B), 4096), cache_bytes(model(real.LLAMA_3_8B), 4096, 0.5)
    assert whole == 4 * quarter


@pytest.mark.parametrize(
    ("config", "full", "sliding"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8}, 1, 1),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}, 3, 1),
        ({"model_type": "gemma2"}, 2, 2),
        ({"model_type": "gpt_oss"}, 2, 2),
        ({"model_type": "llama4_text"}, 1, 3),
        ({"model_type": "mistral"}, 0, 4),
        ({"model_type": "mistral", "sliding_window": None}, 4, 0),
        ({"model_type": "exaone4", "sliding_window_pattern": "LLLG"}, 1, 3),
        ({"model_type": "jamba", "attn_layer_period": 4, "attn_layer_offset": 1}, 1, 0),
        ({"model_type": "lfm2", "full_attn_idxs": [1, 3], "conv_L_cache": 3}, 2, 0),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M*M-"}, 1, 0),
        ({"model_type": "mamba"}, 0, 0),
        ({"model_type": "llama", "layer_types": "nonsense", "sliding_window": "8"}, 0, 0),
        ({"model_type": "llama", "num_kv_shared_layers": 3}, 1, 0),
    ],
    ids=str,
)
def test_kinds_of_layers(config: dict[str, Any], full: int, sliding: int) -> None:
    shape = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4}
    spec = read_attention(shape | config)
    assert (spec.full, spec.sliding) == (full, sliding)
    assert bool(spec.window) == bool(sliding)


def test_a_config_that_says_nothing_is_no_error() -> None:
    assert read_attention({}) == AttentionSpec()
    assert read_attention({"num_hidden_layers": 2**40, "layer_types": [None], "full_attention_interval": True})


def test_a_model_without_a_specification_counts_by_its_shape() -> None:
    described = ModelInfo(path="/m", name="m", shape=read_shape(real.LLAMA_3_8B))
    assert cache_bytes(described, 10) == 10 * kv_bytes_per_token(described) == 1_310_720


@pytest.mark.parametrize("key", ["full_attn_idxs", "attn_layer_indices", "linear_attn_config"])
@pytest.mark.parametrize("value", ["012", {"full_attn_layers": "012"}, {"a": 1}, 3])
def test_lists_of_layers_that_are_none_are_passed_over(key: str, value: object) -> None:
    assert read_attention(real.LLAMA_3_8B | {key: value}).full == 0
