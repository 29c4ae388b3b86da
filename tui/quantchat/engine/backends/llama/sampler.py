"""From llama.cpp's logits to the next token: the rules and the order of `engine/sampling.py`, without torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from quantchat.domain.generation import SamplingSettings
from quantchat.engine import drawing
from quantchat.engine.drawing import GREEDY_BELOW, SHORT, Ids, Singles
from quantchat.engine.rules import BiasTable, SeenSequences

PROBE = 1024
"""Tokens that nearly always hold all of top-p without top-k; only where they do not, the whole vocabulary is sorted."""
GROUP = 64
"""The largest logits are in the groups of so many with the largest maxima: a quarter of the time of looking at all."""


class Rule(Protocol):
    """Changes logits by what was said so far."""

    def apply(self, scores: Singles) -> None:
        """Change logits of shape [vocabulary] in place."""

    def accept(self, token: int) -> None:
        """Note the token that was chosen."""


class Sampler:
    """Chooses the tokens of one turn; it has its own random numbers, one for each token."""

    def __init__(self, settings: SamplingSettings, *, seed: int | None, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._settings = settings
        self._greedy = settings.temperature < GREEDY_BELOW
        self._short = 0 < settings.top_k <= SHORT and settings.typical_p == 1
        self._random = random.Random(seed)  # noqa: S311 - text must come out the same, not be unguessable
        self._rules = _rules(settings, tokenizer, prompt)

    def sample(self, logits: Singles) -> int:
        """Choose a token by its logits of shape [vocabulary].

        Raises:
            GenerationError: if the logits are not finite or the settings forbid every token.
        """
        scores = logits.copy() if self._rules else logits
        for rule in self._rules:
            rule.apply(scores)
        if self._greedy:
            token = int(scores.argmax())
            self._check(float(scores[token]))
            return token
        share = self._random.random()
        values, tokens, total = self._candidates(scores)
        self._check(float(values.max()))
        if self._short:
            return drawing.short_draw(self._settings, values.tolist(), tokens.tolist(), share)
        return drawing.narrowed(self._settings, values, tokens, total).at(share)

    def accept(self, token: int) -> None:
        """Note that this token is now part of the answer."""
        for rule in self._rules:
            rule.accept(token)

    def _candidates(self, scores: Singles) -> tuple[Singles, Ids, float | None]:
        """Return logits and ids that hold all that may be chosen, and the weight of all tokens where that is more."""
        settings, size = self._settings, len(scores)
        if settings.top_k:
            return *largest(scores, min(settings.top_k, size)), None
        if settings.top_p == 1:
            return scores, np.arange(size), None
        if size > PROBE:
            values, tokens = largest(scores, PROBE)
            with np.errstate(invalid="ignore"):
                total = float(np.exp((scores - values[0]) / np.float32(settings.temperature)).sum(dtype=np.float64))
            if drawing.weights(values, settings.temperature).sum() >= settings.top_p * total:
                return values, tokens, total
        return *largest(scores, size), None

    def _check(self, highest: float) -> None:
        drawing.check(highest, ruled=bool(self._rules))


def largest(scores: Singles, count: int) -> tuple[Singles, Ids]:
    """Return the largest logits and their ids, largest first; not-a-number counts as the largest."""
    groups, rest = divmod(len(scores), GROUP)
    places: Ids = np.arange(len(scores))
    if 2 * count < groups:
        maxima = scores[: groups * GROUP].reshape(groups, GROUP).max(1)
        best = np.argpartition(maxima, groups - count)[groups - count :]
        inside = (best[:, None] * GROUP + places[:GROUP]).reshape(-1)
        places = np.concatenate((inside, places[len(scores) - rest :]))
    values = scores[places]
    if count < len(values):
        chosen = np.argpartition(values, len(values) - count)[len(values) - count :]
        values, places = values[chosen], places[chosen]
    order = np.argsort(-values, kind="stable")
    return values[order], places[order]


def _rules(settings: SamplingSettings, tokenizer: Any, prompt: Sequence[int]) -> list[Rule]:
    rules: list[Rule] = []
    if settings.logit_bias:
        rules.append(_LogitBias(BiasTable(settings.logit_bias, tokenizer, prompt)))
    if settings.repetition_penalty != 1:
        rules.append(_RepetitionPenalty(settings.repetition_penalty, prompt))
    if settings.presence_penalty or settings.frequency_penalty:
        rules.append(_UsePenalty(settings.presence_penalty, settings.frequency_penalty))
    if settings.no_repeat_ngram:
        rules.append(_NoRepeatNGram(SeenSequences(settings.no_repeat_ngram, prompt)))
    return rules


class _LogitBias:
    """Adds a bias to texts, as `BiasTable` says."""

    def __init__(self, table: BiasTable) -> None:
        self._table = table

    def apply(self, scores: Singles) -> None:
        for prefix in self._table.now():
            for token, value in self._table.after[prefix].items():
                scores[token] += value

    def accept(self, token: int) -> None:
        self._table.accept(token)


class _RepetitionPenalty:
    """Divides the logits above zero of all tokens of prompt and answer, and multiplies those below (CTRL, 2019)."""

    def __init__(self, penalty: float, prompt: Sequence[int]) -> None:
        self._penalty = np.float32(penalty)
        self._seen = dict.fromkeys(prompt)
        self._tokens: Ids = np.fromiter(self._seen, np.int64)

    def apply(self, scores: Singles) -> None:
        seen = scores[self._tokens]
        scores[self._tokens] = np.where(seen < 0, seen * self._penalty, seen / self._penalty)

    def accept(self, token: int) -> None:
        if token not in self._seen:
            self._seen[token] = None
            self._tokens = np.append(self._tokens, token)


class _UsePenalty:
    """Lowers the logits of tokens that the answer has used: once, and for each use."""

    def __init__(self, presence: float, frequency: float) -> None:
        self._presence, self._frequency = presence, frequency
        self._places: dict[int, int] = {}
        self._tokens: Ids = np.zeros(0, np.int64)
        self._values: Singles = np.zeros(0, np.float32)

    def apply(self, scores: Singles) -> None:
        scores[self._tokens] -= self._values

    def accept(self, token: int) -> None:
        if token not in self._places:
            self._places[token] = len(self._tokens)
            self._tokens = np.append(self._tokens, token)
            self._values = np.append(self._values, np.float32(self._presence))
        self._values[self._places[token]] += self._frequency


class _NoRepeatNGram:
    """Forbids each token that would make a sequence of some tokens stand a second time."""

    def __init__(self, seen: SeenSequences) -> None:
        self._seen = seen

    def apply(self, scores: Singles) -> None:
        for token in self._seen.now():
            scores[token] = -np.inf

    def accept(self, token: int) -> None:
        self._seen.accept(token)
