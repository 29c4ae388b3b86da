"""What a conversation keeps in the KV cache, from a `config.json` of whatever model family.

The kinds of layers are those that transformers gives its `DynamicCache` (`get_layer_types_and_kwargs` in
`cache_utils.py`, transformers 5.23); where a config does not list them, the pattern is that of the family's own class
in `configuration_*.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from quantchat.catalog.shape import number, read_shape, text_config
from quantchat.catalog.states import state_sizes
from quantchat.domain.models import AttentionSpec, Shape

Config = Mapping[str, object]
MOST_LAYERS = 4096

FULL = frozenset({"full_attention", "attention", "global_attention", "indexed_attention", "hybrid", "*"})
SLIDING = frozenset({"sliding_attention", "chunked_attention", "local_attention", "hybrid_sliding"})
STATE = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent", "hybrid", "hybrid_sliding", "M"})

_HEADS_256 = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
FAMILIES: Mapping[str, Mapping[str, object]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {**_HEADS_256, "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3": {**_HEADS_256, "sliding_window": 4096, "sliding_window_pattern": 6},
    "gemma3_text": {**_HEADS_256, "sliding_window": 4096, "sliding_window_pattern": 6},
    "gemma3n_text": {**_HEADS_256, "num_key_value_heads": 2, "sliding_window": 512, "sliding_window_pattern": 5},
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "exaone4": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "gpt_oss": {"head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128, "sliding_window_pattern": 2},
    "olmo3": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8},
    "qwen3": {"head_dim": 128},
    "qwen3_moe": {"num_key_value_heads": 4},
    "qwen3_next": {"head_dim": 256, "num_key_value_heads": 2, "full_attention_interval": 4},
    "qwen3_5_text": {"head_dim": 256, "full_attention_interval": 4},
    "qwen3_5_moe_text": {"head_dim": 256, "full_attention_interval": 4},
    "llama4_text": {"head_dim": 128, "attention_chunk_size": 8192, "no_rope_layer_interval": 4},
    "jamba": {"attn_layer_period": 8, "attn_layer_offset": 4},
    "falcon_h1": {"layers_block_type": "hybrid"},
    "mamba": {"layers_block_type": "mamba"},
    "mamba2": {"layers_block_type": "mamba"},
    "falcon_mamba": {"layers_block_type": "mamba"},
}
"""What the config classes take where a `config.json` is silent, as far as the cache depends on it."""
SWITCHED = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "qwen2_5_vl_text", "qwen2_vl_text"})
"""Families whose sliding window counts only with `use_sliding_window`, and only from `max_window_layers` on."""


def complete(config: Config) -> Config:
    """Return the language model's part of a config, with its family's defaults below."""
    text = text_config(config)
    return {**FAMILIES.get(str(text.get("model_type")), {}), **text}


def read_attention(config: Config) -> AttentionSpec:
    """Count what the cache of one conversation holds; zeros where the config does not say."""
    config = complete(config)
    shape = read_shape(config)
    types = layer_types(config, min(shape.layers, MOST_LAYERS))
    values, expanded = _token_values(config, shape)
    count = Counter(types)
    of_state = [kind for kind in types if kind in STATE]
    state_values, state_bytes = state_sizes(config)
    return AttentionSpec(
        full=sum(count[kind] for kind in FULL),
        sliding=sum(count[kind] for kind in SLIDING),
        window=_window(config) if any(kind in SLIDING for kind in types) else 0,
        token_values=_global_values(config) or values,
        sliding_values=values,
        state_values=state_values * len(of_state),
        state_bytes=state_bytes * len(of_state),
        expanded_values=expanded,
    )


def _window(config: Config) -> int:
    return number(config, "sliding_window") or number(config, "attention_chunk_size")


def _token_values(config: Config, shape: Shape) -> tuple[int, int]:
    """Numbers that a token adds to a layer, and what MLA expands them to in every pass.

    MLA (DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1) keeps one compressed vector and one rotated key for
    all heads; transformers caches these and expands them to heads in each pass, the unrotated part of a key twice
    (`DeepseekV2Attention.expand_kv`).
    """
    rank, rotated = number(config, "kv_lora_rank"), number(config, "qk_rope_head_dim")
    if rank and rotated:
        unrotated = number(config, "qk_nope_head_dim")
        expanded = 2 * unrotated + rotated + number(config, "v_head_dim")
        return rank + rotated, shape.attention_heads * expanded
    value_size = number(config, "v_head_dim") or shape.head_size
    return shape.kv_heads * (shape.head_size + value_size), 0


def _global_values(config: Config) -> int:
    """Gemma 4 gives its full-attention layers heads of their own size."""
    size = number(config, "global_head_dim")
    heads = number(config, "num_global_key_value_heads") or number(config, "num_key_value_heads")
    return 2 * heads * size


def layer_types(config: Config, layers: int) -> list[str]:
    """Return the kind of each layer, in transformers' words."""
    for key in ("layer_types", "layers_block_type", "block_types", "attention_types"):
        listed = config.get(key)
        if isinstance(listed, list) and listed and all(isinstance(kind, str) for kind in listed):
            return _shared([str(kind) for kind in listed[:MOST_LAYERS]], config)
        if isinstance(listed, str):
            return [listed] * layers
    return _shared(_patterned(config, layers), config)


def _shared(types: list[str], config: Config) -> list[str]:
    """The last layers of Gemma 3n and 4 read the caches of earlier ones."""
    shared = number(config, "num_kv_shared_layers")
    return types[: max(len(types) - shared, 0)] + ["dummy"] * min(shared, len(types))


def _patterned(config: Config, layers: int) -> list[str]:
    for key, kind in _PATTERNS:
        if config.get(key):
            return [kind(config, index) for index in range(layers)]
    if str(config.get("model_type")) in SWITCHED:
        first = number(config, "max_window_layers") if config.get("use_sliding_window") is True else layers
        return ["full_attention" if index < first else "sliding_attention" for index in range(layers)]
    return ["sliding_attention" if number(config, "sliding_window") else "full_attention"] * layers


def _every(key: str, other: str) -> Callable[[Config, int], str]:
    """Full attention in every n-th layer, the other kind between."""

    def kind(config: Config, index: int) -> str:
        pattern = config[key]
        period = len(pattern) if isinstance(pattern, str) else number(config, key)
        return "full_attention" if period and (index + 1) % period == 0 else other

    return kind


def _jamba(config: Config, index: int) -> str:
    period, offset = number(config, "attn_layer_period"), number(config, "attn_layer_offset")
    return "full_attention" if period and index % period == offset else "mamba"


def _in_list(key: str, other: str, first: int = 0) -> Callable[[Config, int], str]:
    def kind(config: Config, index: int) -> str:
        listed = config[key]
        if isinstance(listed, dict):
            listed = listed.get("full_attn_layers")
        found = isinstance(listed, list) and index + first in listed
        return "full_attention" if found else other

    return kind


def _nemotron(config: Config, index: int) -> str:
    pattern = str(config["hybrid_override_pattern"])
    return pattern[index] if index < len(pattern) else "dummy"


_PATTERNS: tuple[tuple[str, Callable[[Config, int], str]], ...] = (
    ("hybrid_override_pattern", _nemotron),
    ("full_attention_interval", _every("full_attention_interval", "linear_attention")),
    ("full_attn_idxs", _in_list("full_attn_idxs", "conv")),
    ("attn_layer_indices", _in_list("attn_layer_indices", "mamba")),
    ("linear_attn_config", _in_list("linear_attn_config", "linear_attention", 1)),
    ("attn_layer_period", _jamba),
    ("sliding_window_pattern", _every("sliding_window_pattern", "sliding_attention")),
    ("no_rope_layer_interval", _every("no_rope_layer_interval", "chunked_attention")),
)
