"""From logits to the next token.

The order is that of transformers' `generate`: logit bias, penalties, no-repeat n-gram; then temperature, top-k, top-p,
min-p and typical-p. The device only finds the most probable tokens; they come to the host in one transfer, where the
rest is arithmetic on few numbers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from quantchat.domain.generation import SamplingSettings
from quantchat.engine import drawing
from quantchat.engine.drawing import GREEDY_BELOW, SHORT, Distribution, Ids, Singles
from quantchat.engine.penalties import processors

PROBE = 1024
"""Tokens that nearly always hold all of top-p without top-k; only where they do not, the whole vocabulary is sorted."""
GROUP, GROUPED_FROM = 64, 65_536
"""From this vocabulary on, a CPU first looks at the maxima of groups of logits."""


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
        values, tokens = _top(scores, min(self._settings.top_k, scores.shape[0]))
        self._check(values[0])
        return drawing.short_draw(self._settings, values, tokens, share)

    def _distribution(self, scores: torch.Tensor) -> Distribution:
        return drawing.narrowed(self._settings, *self._candidates(scores))

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
            if drawing.weights(values, settings.temperature).sum() >= settings.top_p * total:
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
        drawing.check(highest, ruled=bool(self._rules))


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
