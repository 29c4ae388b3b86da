"""From logits to the next token.

The order is that of transformers' `generate`: logit bias, penalties, no-repeat n-gram; then temperature, top-k, top-p,
min-p and typical-p. The device only finds the most probable tokens; they come to the host in one transfer, where the
rest is arithmetic on few numbers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quantchat.domain.generation import SamplingSettings
from quantchat.engine.penalties import processors
from quantchat.errors import GenerationError

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

GREEDY_BELOW = 1e-5
"""A temperature below leaves nothing but the most probable token, and numbers would overflow."""
PROBE = 1024
"""Tokens that nearly always hold all of top-p without top-k; only where they do not, the whole vocabulary is sorted."""
GROUP = 64
"""Logits whose maximum is looked at first on the CPU."""


@dataclass(frozen=True)
class Distribution:
    """Tokens that may come next and the running sum of their weights, which do not add up to 1."""

    tokens: Ids
    cumulative: Floats

    @property
    def probabilities(self) -> Floats:
        """The probability of each token."""
        shares: Floats = np.diff(self.cumulative, prepend=0.0) / self.cumulative[-1]
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
        self._random = random.Random(seed)  # noqa: S311 - text must come out the same, not be unguessable
        self._rules = processors(settings, tokenizer, prompt, torch.device(device))

    def sample(self, logits: torch.Tensor) -> int:
        """Choose a token by its logits of shape [vocabulary].

        Raises:
            GenerationError: if the logits are not finite or the settings forbid every token.
        """
        if self._greedy:
            values, tokens = _to_host(*_top(self._processed(logits), 1))
            self._check(values)
            return int(tokens[0])
        return self.distribution(logits).at(self._random.random())

    def accept(self, token: int) -> None:
        """Note that this token is now part of the answer."""
        for rule in self._rules:
            rule.accept(token)

    def distribution(self, logits: torch.Tensor) -> Distribution:
        """Return the tokens that sampling may give and their probabilities.

        Raises:
            GenerationError: as `sample`.
        """
        settings = self._settings
        values, tokens, total = self._candidates(self._processed(logits))
        weights = _weights(values, settings.temperature)
        kept = len(weights)
        if settings.top_p < 1:
            kept = int(weights.cumsum().searchsorted(settings.top_p * (total or weights.sum()))) + 1
        if settings.min_p > 0:
            kept = min(kept, int((-weights).searchsorted(-settings.min_p * weights[0], side="right")))
        weights, tokens = weights[:kept], tokens[:kept]
        if settings.typical_p < 1:
            typical = _typical(weights, settings.typical_p)
            weights, tokens = weights[typical], tokens[typical]
        return Distribution(tokens, weights.cumsum())

    def _processed(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits.detach().to(torch.float32, copy=bool(self._rules))
        for rule in self._rules:
            rule.apply(scores)
        return scores

    def _candidates(self, scores: torch.Tensor) -> tuple[Floats, Ids, float | None]:
        """Return logits and ids that hold all that may be chosen, most probable first, and the weight of all tokens.

        The weight is None where it is that of the candidates. Without any filter the order is that of the ids.
        """
        settings, size = self._settings, scores.shape[0]
        if settings.top_k:
            return *self._checked(*_top(scores, min(settings.top_k, size))), None
        if settings.top_p == settings.typical_p == 1 and not settings.min_p:
            return *self._checked(scores, torch.arange(size, device=scores.device)), None
        if settings.typical_p == 1 and size > PROBE:
            values, tokens, total = self._probe(scores)
            if self._suffices(values, total):
                return values, tokens, total
        return *self._checked(*scores.sort(descending=True)), None

    def _probe(self, scores: torch.Tensor) -> tuple[Floats, Ids, float]:
        values, tokens = _top(scores, PROBE)
        total = ((scores - values[0]) / self._settings.temperature).exp().sum()
        # The sum rides along: a transfer of its own would make the host wait a second time.
        found, ids = _to_host(torch.cat((values, total.reshape(1))), torch.nn.functional.pad(tokens, (0, 1)))
        self._check(found[:-1])
        return found[:-1], ids[:-1], float(found[-1])

    def _suffices(self, values: Floats, total: float) -> bool:
        weights = _weights(values, self._settings.temperature)
        top_p_inside = self._settings.top_p < 1 and weights.sum() >= self._settings.top_p * total
        return bool(top_p_inside or weights[-1] < self._settings.min_p * weights[0])

    def _checked(self, values: torch.Tensor, tokens: torch.Tensor) -> tuple[Floats, Ids]:
        found, ids = _to_host(values, tokens)
        self._check(found)
        return found, ids

    def _check(self, values: Floats) -> None:
        highest = values.max()
        if np.isfinite(highest):
            return
        if highest == -np.inf and self._rules:
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


def _weights(values: Floats, temperature: float) -> Floats:
    weights: Floats = np.exp((values - values.max()) / temperature)
    return weights


def _typical(weights: Floats, mass: float) -> Ids:
    """Return the places of the tokens whose information is closest to the entropy (Meister et al. 2022)."""
    probabilities = weights / weights.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = -np.log(probabilities)
        distance = np.abs(information - np.nansum(probabilities * information))
    order: Ids = distance.argsort(kind="stable")
    last = min(int(probabilities[order].cumsum().searchsorted(mass)), len(order) - 1)
    return order[: int(distance[order].searchsorted(distance[order[last]], side="right"))]


def _top(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest logits and their ids, largest first."""
    if scores.device.type != "cpu":
        values, tokens = scores.max(0, keepdim=True) if count == 1 else scores.topk(count)
        return values, tokens
    if count == 1:
        # torch needs 20 to 90 times as long for it on a CPU.
        token = torch.tensor([int(scores.numpy().argmax())])
        return scores[token], token
    return _top_of_groups(scores, count)


def _top_of_groups(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Look only into the groups with the largest maxima: the largest logits cannot be elsewhere."""
    groups = scores.shape[0] // GROUP
    if groups < 4 * count:
        values, tokens = scores.topk(count)
        return values, tokens
    grouped = scores[: groups * GROUP].reshape(groups, GROUP)
    best = grouped.amax(1).topk(count, sorted=False).indices
    rest = scores[groups * GROUP :]
    values, places = torch.cat((grouped.index_select(0, best).flatten(), rest)).topk(count)
    starts = torch.nn.functional.pad(best, (0, 1), value=groups) * GROUP
    return values, starts[places // GROUP] + places % GROUP


def _to_host(values: torch.Tensor, tokens: torch.Tensor) -> tuple[Floats, Ids]:
    if values.device.type == "cpu":
        return values.numpy().astype(np.float64), tokens.numpy()
    # A float32 holds ids up to 2^24 exactly, so that one transfer carries both.
    both = torch.stack((values, tokens.to(values.dtype))).cpu().numpy()
    return both[0].astype(np.float64), both[1].astype(np.int64)
