"""Sizes of the states of layers that keep no list of tokens, from the family's own modelling code (transformers 5.23).

Each rule returns, for one layer, the numbers kept in the dtype of the activations (the last inputs of a short
convolution) and the bytes of the recurrent state, which is computed and kept in 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quantchat.catalog.shape import number

Config = Mapping[str, object]
Sizes = tuple[int, int]
FLOAT32 = 4


def state_sizes(config: Config) -> Sizes:
    """Return both sizes of one layer; zeros for a network that has no such layers."""
    for key, rule in _RULES:
        if number(config, key):
            return rule(config)
    return 0, 0


def _gated_delta(config: Config) -> Sizes:
    """Qwen3-Next and Qwen3.5: `Qwen3NextGatedDeltaNet`."""
    keys = number(config, "linear_num_key_heads", 16) * number(config, "linear_key_head_dim", 128)
    heads, size = number(config, "linear_num_value_heads", 32), number(config, "linear_value_head_dim", 128)
    convolved = (2 * keys + heads * size) * number(config, "linear_conv_kernel_dim", 4)
    return convolved, heads * number(config, "linear_key_head_dim", 128) * size * FLOAT32


def _mamba2(names: Mapping[str, str]) -> Callable[[Config], Sizes]:
    """State space with heads: `Mamba2Mixer`, `FalconH1Mixer`, `BambaMixer`, `GraniteMoeHybridMambaLayer`."""

    def rule(config: Config) -> Sizes:
        def of(name: str, default: int = 0) -> int:
            return number(config, names.get(name, name), default)

        inner = of("inner") or of("expand", 2) * of("hidden_size")
        heads = of("heads")
        size = of("head_size") or (inner // heads if heads else 0)
        state, groups = of("state", 128), of("groups", 1)
        inner = heads * size or inner
        return (inner + 2 * groups * state) * of("kernel", 4), heads * size * state * FLOAT32

    return rule


def _mamba(config: Config) -> Sizes:
    """State space without heads: `MambaMixer`, `JambaMambaMixer`."""
    hidden = number(config, "hidden_size")
    expand = number(config, "mamba_expand") or number(config, "expand", 2)
    inner = number(config, "intermediate_size") if "state_size" in config else expand * hidden
    inner = inner or expand * hidden
    state = number(config, "mamba_d_state") or number(config, "state_size", 16)
    kernel = number(config, "mamba_d_conv") or number(config, "conv_kernel", 4)
    return inner * kernel, inner * state * FLOAT32


def _short_convolution(config: Config) -> Sizes:
    """LFM2: `Lfm2ShortConv`."""
    return number(config, "hidden_size") * number(config, "conv_L_cache", 3), 0


_PREFIXED = {"inner": "mamba_d_ssm", "expand": "mamba_expand", "heads": "mamba_n_heads", "head_size": "mamba_d_head",
             "state": "mamba_d_state", "groups": "mamba_n_groups", "kernel": "mamba_d_conv"}  # fmt: skip
_NEMOTRON = {"heads": "mamba_num_heads", "head_size": "mamba_head_dim", "state": "ssm_state_size",
             "groups": "n_groups", "kernel": "conv_kernel"}  # fmt: skip
_PLAIN = {"heads": "num_heads", "head_size": "head_dim", "state": "state_size", "groups": "n_groups",
          "kernel": "conv_kernel"}  # fmt: skip

_RULES: tuple[tuple[str, Callable[[Config], Sizes]], ...] = (
    ("linear_num_value_heads", _gated_delta),
    ("mamba_n_heads", _mamba2(_PREFIXED)),
    ("mamba_num_heads", _mamba2(_NEMOTRON)),
    ("mamba_d_state", _mamba),
    ("n_groups", _mamba2(_PLAIN)),
    ("state_size", _mamba),
    ("conv_L_cache", _short_convolution),
)
"""The key that tells a family, and its rule; more telling keys first."""
