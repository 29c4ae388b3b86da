"""Attention with grouped heads over a long cache on the CPU, where the usual ways are slow.

Several query heads read the same keys. For one new token PyTorch takes each head for itself, a matrix of one row: in
bfloat16 that is 6 to 14 times slower than all heads of a group as rows of one matrix, and decoding slows down with
every turn of a chat (`tests/bench/attention.py`). For many tokens behind a mask transformers repeats the keys for each
head, which PyTorch's own kernel spares: 10 to 25 % of the time. The sums are the same, and mostly the very bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FEW = 16
"""New tokens up to which folded heads win; measured with 2 to 7 heads a group and 64 and 128 dimensions."""
BLOCK = 32
"""Rows that PyTorch's kernel takes at once; a last block of one row costs more than the others together."""
_UNUSUAL = ("position_bias", "cache", "softcap", "output_attentions")
"""What transformers' function knows besides: it gets such calls."""


def install() -> None:
    """Take the place of `sdpa` in all models of this process; what is not grouped heads on the CPU goes on to it."""
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention as transformers' `sdpa_attention_forward` does.

    Args:
        module: The attention layer.
        query: Of shape [batch, heads, tokens, dimensions].
        key: Of shape [batch, key heads, length, dimensions].
        value: Likewise.
        attention_mask: Of shape [batch, 1, tokens, length], or None where all is seen.
        dropout: Share of weights that are dropped; 0 in inference.
        scaling: Factor of the products; None for 1/√dimensions.
        more: What else a model passes.

    Returns:
        Of shape [batch, tokens, heads, dimensions], and no weights.
    """
    usual = not dropout and all(more.get(name) is None for name in _UNUSUAL)
    if not usual or not _is_ours(query, key, attention_mask):
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return result
    if _pays(query.shape[2], query.shape[1] // key.shape[1]):
        output = _folded(query, key, value, attention_mask, scaling)
    else:
        output = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
    return output.transpose(1, 2).contiguous(), None


def _is_ours(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> bool:
    if query.device.type != "cpu" or query.shape[1] == key.shape[1]:
        return False
    # Without a mask several tokens mean causal order from the first position on: transformers' own matter.
    return query.shape[2] == 1 if mask is None else tuple(mask.shape[1:-2]) == (1,)


def _pays(tokens: int, groups: int) -> bool:
    if tokens % BLOCK == 1:
        return True
    return tokens <= FEW and groups * tokens % BLOCK != 1


def _folded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    batch, heads, tokens, dimensions = query.shape
    groups = heads // key.shape[1]
    rows = query.reshape(batch, key.shape[1], groups * tokens, dimensions)
    if mask is not None and tokens > 1:
        mask = mask.repeat(1, 1, groups, 1)
    output = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, tokens, value.shape[-1])
