"""The sizes of a network, from a `config.json` of whatever model family."""

from __future__ import annotations

from collections.abc import Mapping

from quantchat.domain.models import Shape

LARGEST = 2**31
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "n_ctx",
)


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part that describes the language model: multimodal configs nest it."""
    for part in _TEXT_PARTS:
        nested = config.get(part)
        if isinstance(nested, dict):
            return {**config, **nested}
    return config


def read_shape(config: Mapping[str, object]) -> Shape:
    """Read layers, heads and widths; 0 where the config does not say."""
    config = text_config(config)
    hidden, heads = _first(config, _HIDDEN), _first(config, _HEADS)
    shared = config.get("multi_query") is True and config.get("new_decoder_architecture") is not True
    return Shape(
        layers=_first(config, _LAYERS),
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=_first(config, _KV_HEADS) or (1 if shared else heads),
        head_size=_first(config, ("head_dim",)) or (hidden // heads if heads else 0),
        vocabulary=_first(config, ("vocab_size",)),
    )


def read_context_window(config: Mapping[str, object]) -> int | None:
    """Read the context window in tokens."""
    return _first(text_config(config), _CONTEXT) or None


def number(config: Mapping[str, object], key: str, default: int = 0) -> int:
    """Read a whole number above 0; the default where there is none of a sensible size."""
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST else default


def _first(config: Mapping[str, object], keys: tuple[str, ...]) -> int:
    return next((found for key in keys if (found := number(config, key))), 0)
