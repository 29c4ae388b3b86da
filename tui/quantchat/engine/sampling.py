"""From logits to the next token.

The order is that of transformers' `generate`: logit bias, penalties, no-repeat n-gram; then temperature, top-k, top-p,
min-p and typical-p. The device only finds the most probable tokens; they come to the host in one transfer, where the
rest is arithmetic on few numbers.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, inf, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quantchat.domain.generation import SamplingSettings
from quantchat.engine.penalties import processors
from quantchat.errors import GenerationError

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

GREEDY_BELOW = 1e-5
"""A temperature below leaves nothing but the most probable token, and numbers would overflow."""
PROBE = 1024
"""Tokens that nearly always hold all of top-p without top-k; only where they do not, the whole vocabulary is sorted."""
SHORT = 256
"""Up to so many candidates plain Python is faster than numpy, above all after a forward pass emptied the caches."""
GROUP, GROUPED_FROM = 64, 65_536
"""From this vocabulary on, a CPU first looks at the maxima of groups of logits."""


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


class Sampler:
    """Chooses the tokens of one turn; it has its own random numbers, one for each token."""

    def __init__(
        self,
        settings: SamplingSettings,
        *,
        seed: int | None,
        tokenizer: Any,
        prompt: Sequence[int],
        device: torch.device | str,
    ) -> None:
        self._settings = settings
        self._greedy = settings.temperature < GREEDY_BELOW
        self._short = 0 < settings.top_k <= SHORT and settings.typical_p == 1
        self._random = random.Random(seed)  # noqa: S311 - text must come out the same, not be unguessable
        self._ids: torch.Tensor | None = None
        self._rules = processors(settings, tokenizer, prompt, torch.device(device))

    def sample(self, logits: torch.Tensor) -> int:
        """Choose a token by its logits of shape [vocabulary].

        Raises:
            GenerationError: if the logits are not finite or the settings forbid every token.
        """
        scores = self._processed(logits)
        if self._greedy:
            highest, token = _highest(scores)
            self._check(highest)
            return token
        share = self._random.random()
        return self._short_draw(scores, share) if self._short else self._distribution(scores).at(share)

    def accept(self, token: int) -> None:
        """Note that this token is now part of the answer."""
        for rule in self._rules:
            rule.accept(token)

    def distribution(self, logits: torch.Tensor) -> Distribution:
        """Return the tokens that sampling may give and their probabilities.

        Raises:
            GenerationError: as `sample`.
        """
        return self._distribution(self._processed(logits))

    def _processed(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits.to(torch.float32, copy=bool(self._rules))
        for rule in self._rules:
            rule.apply(scores)
        return scores

    def _short_draw(self, scores: torch.Tensor, share: float) -> int:
        """Draw as `Distribution.at` does, from few candidates."""
        settings = self._settings
        values, tokens = _top(scores, min(settings.top_k, scores.shape[0]))
        self._check(highest := values[0])
        weights = [exp((value - highest) / settings.temperature) for value in values]
        cumulative = list(accumulate(weights))
        kept = len(weights)
        if settings.top_p < 1:
            kept = min(kept, bisect_left(cumulative, settings.top_p * cumulative[-1]) + 1)
        if settings.min_p > 0:
            kept = min(kept, sum(weight >= settings.min_p for weight in weights))
        place = bisect_right(cumulative, share * cumulative[kept - 1], 0, kept)
        return tokens[place if place < kept else 0]

    def _distribution(self, scores: torch.Tensor) -> Distribution:
        settings = self._settings
        values, tokens, total = self._candidates(scores)
        weights = _weights(values, settings.temperature)
        if settings.top_p < 1:
            kept = (
                int(
                    weights.cumsum(dtype=np.float64).searchsorted(
                        settings.top_p * (total or weights.sum(dtype=np.float64))
                    )
                )
                + 1
            )
            weights, tokens = weights[:kept], tokens[:kept]
        if settings.min_p > 0:
            probable = weights >= settings.min_p
            weights, tokens = weights[probable], tokens[probable]
        if settings.typical_p < 1:
            typical = _typical(weights, settings.typical_p)
            weights, tokens = weights[typical], tokens[typical]
        return Distribution(tokens, weights.cumsum(dtype=np.float64))

    def _candidates(self, scores: torch.Tensor) -> tuple[Singles, Ids, float | None]:
        """Return logits and ids that hold all that may be chosen, and the weight of all tokens where that is more.

        The most probable one comes first where top-k or top-p is on.
        """
        settings, size = self._settings, scores.shape[0]
        if settings.top_k:
            return *self._on_host(*scores.topk(min(settings.top_k, size))), None
        if settings.top_p == 1:
            return *self._on_host(scores, self._all_ids(size)), None
        if size > PROBE:
            values, tokens, total = self._probe(scores)
            if _weights(values, settings.temperature).sum() >= settings.top_p * total:
                return values, tokens, total
        return *self._on_host(*scores.sort(descending=True)), None

    def _all_ids(self, size: int) -> torch.Tensor:
        if self._ids is None:
            self._ids = torch.arange(size)
        return self._ids

    def _probe(self, scores: torch.Tensor) -> tuple[Singles, Ids, float]:
        values, tokens = scores.topk(PROBE)
        total = ((scores - values[0]) / self._settings.temperature).exp().sum()
        # The sum rides along: a transfer of its own would make the host wait a second time.
        found, ids = _to_host(torch.cat((values, total.reshape(1))), torch.nn.functional.pad(tokens, (0, 1)))
        self._check(float(found[0]))
        return found[:-1], ids[:-1], float(found[-1])

    def _on_host(self, values: torch.Tensor, tokens: torch.Tensor) -> tuple[Singles, Ids]:
        found, ids = _to_host(values, tokens)
        self._check(float(found.max()))
        return found, ids

    def _check(self, highest: float) -> None:
        if isfinite(highest):
            return
        if highest == -inf and self._rules:
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


def _weights(values: Singles, temperature: float) -> Singles:
    """Return probabilities up to a factor; that of the most probable token is 1."""
    weights: Singles = np.exp((values - values.max()) / np.float32(temperature))
    return weights


def _typical(weights: Singles, mass: float) -> Ids:
    """Return the places of the tokens whose information is closest to the entropy (Meister et al. 2022)."""
    probabilities = weights / weights.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = -np.log(probabilities)
        distance = np.abs(information - np.nansum(probabilities * information))
    order: Ids = distance.argsort(kind="stable")
    last = min(int(probabilities[order].cumsum(dtype=np.float64).searchsorted(mass)), len(order) - 1)
    return order[: int(distance[order].searchsorted(distance[order[last]], side="right"))]


def _highest(scores: torch.Tensor) -> tuple[float, int]:
    if scores.device.type == "cpu":
        # torch needs 2 to 20 times as long for it on a CPU.
        row = scores.numpy()
        return float(row[token := int(row.argmax())]), token
    values, tokens = _to_host(*scores.max(0, keepdim=True))
    return float(values[0]), int(tokens[0])


def _top(scores: torch.Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the largest logits and their ids, largest first."""
    on_cpu = scores.device.type == "cpu"
    if on_cpu and scores.shape[0] >= GROUPED_FROM:
        return _top_of_groups(scores, count)
    values, tokens = scores.topk(count)
    if on_cpu:
        return values.tolist(), tokens.tolist()
    found, ids = _to_host(values, tokens)
    return found.tolist(), ids.tolist()


def _top_of_groups(scores: torch.Tensor, count: int) -> tuple[list[float], list[int]]:
    """Look only into the groups with the largest maxima: the largest logits cannot be elsewhere."""
    groups, rest = divmod(scores.shape[0], GROUP)
    grouped = (scores[:-rest] if rest else scores).view(groups, GROUP)
    best = grouped.amax(1).topk(count, sorted=False).indices
    chosen = grouped.index_select(0, best).view(-1)
    values, places = (torch.cat((chosen, scores[-rest:])) if rest else chosen).topk(count)
    starts = [*best.tolist(), groups]
    return values.tolist(), [starts[place // GROUP] * GROUP + place % GROUP for place in places.tolist()]


def _to_host(values: torch.Tensor, tokens: torch.Tensor) -> tuple[Singles, Ids]:
    if values.device.type == "cpu":
        return values.numpy(), tokens.numpy()
    if tokens.device != values.device:
        return values.cpu().numpy(), tokens.numpy()
    # A float32 holds ids up to 2^24 exactly, so that one transfer carries both.
    both = torch.stack((values, tokens.to(values.dtype))).cpu().numpy()
    return both[0], both[1].astype(np.int64)
