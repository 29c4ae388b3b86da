"""The search for the bounds to which AWQ clips the weights of each group, in a fraction of GPTQModel's time.

With the change `d` of a group's weights by clipping and quantizing, the squared error of its output over all tokens
is dᵀ(XᵀX)d. So each token is multiplied once, for the Gram matrix XᵀX of its group, and not once per candidate and row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Loss: TypeAlias = "Callable[[Tensor], Tensor]"
"""Of changed weights [groups, rows, size], the squared error of their output per group and row."""

SIGNATURE = ("self", "w", "input_feat", "n_grid", "max_shrink", "n_sample_token")
"""Of the method of GPTQModel's `AWQProcessor` that `compute_best_clip` stands in for."""
WIDEST = 512
"""Inputs of a group up to which its Gram matrix is cheaper than a sample of the tokens."""
TOKENS = 4096
"""Tokens that are multiplied at once."""
ELEMENTS = 1 << 24
"""Weights that are searched at once: bounds the memory to a few hundred megabytes."""


def compute_best_clip(
    self: Any, w: Tensor, input_feat: Tensor, n_grid: int = 20, max_shrink: float = 0.5, n_sample_token: int = 512
) -> Tensor:
    """Return the bounds, [outputs, groups, 1], as GPTQModel's method does; all tokens count."""
    import torch

    size = self.qcfg.group_size if self.qcfg.group_size > 0 else w.shape[1]

    def quantized(weights: Tensor, bound: Tensor) -> Tensor:
        result = torch.empty_like(weights)
        self._pseudo_quantize_tensor_into(weights, result, abs_max=bound)
        return result

    with torch.inference_mode():
        shrinks = [1 - step / n_grid for step in range(int(max_shrink * n_grid))]
        return best_bounds(w, input_feat, size, quantized, shrinks, n_sample_token)


def best_bounds(
    weight: Tensor,
    features: Tensor,
    size: int,
    quantized: Callable[[Tensor, Tensor], Tensor],
    shrinks: list[float],
    sample: int,
) -> Tensor:
    """Choose for each group the bound after which its output errs least.

    Args:
        weight: [outputs, inputs].
        features: Its inputs, [..., inputs].
        size: Inputs of a group.
        quantized: Quantizes and dequantizes weights [rows, groups, size] that lie within bounds [rows, groups, 1].
        shrinks: The candidates, as shares of a group's largest weight; the first is 1, and wins a tie.
        sample: How many tokens are enough where groups are wider than `WIDEST`.
    """
    import torch

    groups = weight.reshape(weight.shape[0], -1, size)
    inputs = features.reshape(-1, groups.shape[1], size)
    lost = by_gram(inputs, weight.device) if size <= WIDEST else by_tokens(inputs, weight.device, sample)
    rows = max(1, ELEMENTS // weight.shape[1])
    return torch.cat([_best(part, lost, quantized, shrinks) for part in groups.split(rows)])


def by_gram(inputs: Tensor, device: Any) -> Loss:
    """Return what computes the squared errors of changes [groups, rows, size] by the Gram matrices of all tokens."""
    matrices = gram(inputs, device)
    return lambda changes: ((changes @ matrices) * changes).sum(dim=-1)


def by_tokens(inputs: Tensor, device: Any, sample: int) -> Loss:
    """Return the same for a sample of the tokens."""
    import torch

    few = inputs[:: max(1, inputs.shape[0] // sample)].to(device, torch.float32).permute(1, 2, 0)
    return lambda changes: (changes @ few).square().sum(dim=-1)


def gram(inputs: Tensor, device: Any) -> Tensor:
    """Return the Gram matrix of each group over all tokens, [groups, size, size], of inputs [tokens, groups, size]."""
    import torch

    total = torch.zeros(inputs.shape[1], inputs.shape[2], inputs.shape[2], device=device)
    for part in inputs.split(TOKENS):
        columns = part.to(device, torch.float32).transpose(0, 1)
        total.baddbmm_(columns.transpose(1, 2), columns)
    return total


def _best(groups: Tensor, lost: Loss, quantized: Callable[[Tensor, Tensor], Tensor], shrinks: list[float]) -> Tensor:
    import torch

    largest = groups.abs().amax(dim=-1, keepdim=True)
    best, least = largest, torch.full(groups.shape[:2], float("inf"), device=groups.device)
    for bound, error in _errors(groups, largest, lost, quantized, shrinks):
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better.unsqueeze(-1), bound, best)
    return best


def _errors(
    groups: Tensor,
    largest: Tensor,
    lost: Loss,
    quantized: Callable[[Tensor, Tensor], Tensor],
    shrinks: list[float],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each candidate's bounds and its squared error per row and group."""
    for shrink in shrinks:
        bound = largest * shrink
        change = quantized(groups.clamp(-bound, bound), bound).float() - groups.float()
        yield bound, lost(change.transpose(0, 1)).transpose(0, 1)
