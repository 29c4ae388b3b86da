"""From the most probable tokens to the next one: arithmetic on few numbers, on the host."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, inf, isfinite

import numpy as np
import numpy.typing as npt

from quantchat.domain.generation import SamplingSettings
from quantchat.errors import GenerationError

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

GREEDY_BELOW = 1e-5
"""A temperature below leaves nothing but the most probable token, and numbers would overflow."""
SHORT = 256
"""Up to so many candidates plain Python is faster than numpy, above all after a forward pass emptied the caches."""


@dataclass(frozen=True)
class Distribution:
    """Tokens that may come next and the running sum of their weights, which do not add up to 1."""

    tokens: Ids
    cumulative: Doubles

    @property
    def probabilities(self) -> Doubles:
        """The probability of each token."""
        shares: Doubles = np.diff(self.cumulative, prepend=0.0) / self.cumulative[-1]
        return shares

    def at(self, share: float) -> int:
        """Return the token at a share of the whole weight, 0 ≤ share < 1."""
        place = int(self.cumulative.searchsorted(share * self.cumulative[-1], side="right"))
        # Rounding may lead past the end; the first one has some weight for certain.
        return int(self.tokens[place if place < len(self.tokens) else 0])


def short_draw(settings: SamplingSettings, values: Sequence[float], tokens: Sequence[int], share: float) -> int:
    """Draw as `Distribution.at` does, from few candidates, the most probable first."""
    highest = values[0]
    weights = [exp((value - highest) / settings.temperature) for value in values]
    cumulative = list(accumulate(weights))
    kept = len(weights)
    if settings.top_p < 1:
        kept = min(kept, bisect_left(cumulative, settings.top_p * cumulative[-1]) + 1)
    if settings.min_p > 0:
        kept = min(kept, sum(weight >= settings.min_p for weight in weights))
    place = bisect_right(cumulative, share * cumulative[kept - 1], 0, kept)
    return tokens[place if place < kept else 0]


def narrowed(settings: SamplingSettings, values: Singles, tokens: Ids, total: float | None = None) -> Distribution:
    """Leave out what top-p, min-p and typical-p leave out.

    Args:
        values: Logits of the candidates; with top-k or top-p the most probable comes first.
        total: The weight of all tokens where that is more than theirs.
    """
    found = weights(values, settings.temperature)
    if settings.top_p < 1:
        mass = settings.top_p * (total or found.sum(dtype=np.float64))
        kept = int(found.cumsum(dtype=np.float64).searchsorted(mass)) + 1
        found, tokens = found[:kept], tokens[:kept]
    if settings.min_p > 0:
        probable = found >= settings.min_p
        found, tokens = found[probable], tokens[probable]
    if settings.typical_p < 1:
        typical = _typical(found, settings.typical_p)
        found, tokens = found[typical], tokens[typical]
    return Distribution(tokens, found.cumsum(dtype=np.float64))


def weights(values: Singles, temperature: float) -> Singles:
    """Return probabilities up to a factor; that of the most probable token is 1."""
    found: Singles = np.exp((values - values.max()) / np.float32(temperature))
    return found


def _typical(weights: Singles, mass: float) -> Ids:
    """Return the places of the tokens whose information is closest to the entropy (Meister et al. 2022)."""
    probabilities = weights / weights.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = -np.log(probabilities)
        distance = np.abs(information - np.nansum(probabilities * information))
    order: Ids = distance.argsort(kind="stable")
    last = min(int(probabilities[order].cumsum(dtype=np.float64).searchsorted(mass)), len(order) - 1)
    return order[: int(distance[order].searchsorted(distance[order[last]], side="right"))]


def check(highest: float, *, ruled: bool) -> None:
    """Refuse logits that nothing can be drawn from.

    Args:
        highest: The largest logit.
        ruled: The settings have changed the logits.

    Raises:
        GenerationError: if they are not finite or the settings forbid every token.
    """
    if isfinite(highest):
        return
    if highest == -inf and ruled:
        raise GenerationError(
            "The settings forbid every token",
            "Logit bias and no-repeat n-gram leave nothing that the model could say",
            "Take some of them back",
            code="all-forbidden",
        )
    raise GenerationError(
        "The model's output is not a number",
        "Its logits hold NaN or infinity, which a damaged model or an unsuitable kernel gives",
        "Load it with another kernel, or check its files",
        code="bad-logits",
    )
