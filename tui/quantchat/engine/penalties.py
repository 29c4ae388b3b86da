"""What changes logits before a token is drawn, by what was said so far; constant work per token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from quantchat.domain.generation import SamplingSettings
from quantchat.engine.rules import BiasTable, Prefix, SeenSequences


class Processor(Protocol):
    """A rule that changes logits."""

    def apply(self, scores: torch.Tensor) -> None:
        """Change float32 logits of shape [vocabulary] in place."""

    def accept(self, token: int) -> None:
        """Note the token that was chosen."""


def processors(
    settings: SamplingSettings, tokenizer: Any, prompt: Sequence[int], device: torch.device
) -> list[Processor]:
    """Return the rules that the settings switch on, in the order in which they apply."""
    rules: list[Processor] = []
    if settings.logit_bias:
        rules.append(_LogitBias(settings.logit_bias, tokenizer, prompt))
    if settings.repetition_penalty != 1:
        rules.append(_RepetitionPenalty(settings.repetition_penalty, prompt, device))
    if settings.presence_penalty or settings.frequency_penalty:
        rules.append(_UsePenalty(settings.presence_penalty, settings.frequency_penalty, device))
    if settings.no_repeat_ngram:
        rules.append(_NoRepeatNGram(settings.no_repeat_ngram, prompt))
    return rules


class _LogitBias:
    """Adds a bias to texts, as `BiasTable` says."""

    def __init__(self, bias: Mapping[str, float], tokenizer: Any, prompt: Sequence[int]) -> None:
        self._table = BiasTable(bias, tokenizer, prompt)
        self._tensors: dict[Prefix, tuple[torch.Tensor, torch.Tensor]] = {}

    def apply(self, scores: torch.Tensor) -> None:
        for prefix in self._table.now():
            tokens, values = self._on_device(prefix, scores)
            scores.index_add_(0, tokens, values)

    def accept(self, token: int) -> None:
        self._table.accept(token)

    def _on_device(self, prefix: Prefix, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if prefix not in self._tensors:
            # A tokenizer may know tokens that the model has no logits for; on a GPU they would end the process.
            known = {token: value for token, value in self._table.after[prefix].items() if token < scores.shape[0]}
            tokens = torch.tensor(list(known), dtype=torch.long, device=scores.device)
            self._tensors[prefix] = tokens, torch.tensor(list(known.values()), device=scores.device)
        return self._tensors[prefix]


class _RepetitionPenalty:
    """Divides the logits above zero of all tokens of prompt and answer, and multiplies those below (CTRL, 2019)."""

    def __init__(self, penalty: float, prompt: Sequence[int], device: torch.device) -> None:
        self._penalty = penalty
        self._seen = _Distinct(prompt, device)

    def apply(self, scores: torch.Tensor) -> None:
        tokens = self._seen.tokens
        seen = scores.index_select(0, tokens)
        scores.index_copy_(0, tokens, torch.where(seen < 0, seen * self._penalty, seen / self._penalty))

    def accept(self, token: int) -> None:
        self._seen.slot(token)


class _UsePenalty:
    """Lowers the logits of tokens that the answer has used: once, and for each use."""

    def __init__(self, presence: float, frequency: float, device: torch.device) -> None:
        self._presence, self._frequency = presence, frequency
        self._used = _Distinct((), device)

    def apply(self, scores: torch.Tensor) -> None:
        scores.index_add_(0, self._used.tokens, self._used.values, alpha=-1)

    def accept(self, token: int) -> None:
        first = token not in self._used
        self._used.add(token, self._frequency + (self._presence if first else 0.0))


class _NoRepeatNGram:
    """Forbids each token that would make a sequence of `size` tokens stand a second time."""

    def __init__(self, size: int, prompt: Sequence[int]) -> None:
        self._seen = SeenSequences(size, prompt)

    def apply(self, scores: torch.Tensor) -> None:
        if forbidden := self._seen.now():
            scores.index_fill_(0, torch.tensor(list(forbidden), device=scores.device), -torch.inf)

    def accept(self, token: int) -> None:
        self._seen.accept(token)


class _Distinct:
    """Distinct tokens and a value for each on the device, in buffers that grow by doubling."""

    def __init__(self, tokens: Iterable[int], device: torch.device) -> None:
        self._slots = {token: slot for slot, token in enumerate(dict.fromkeys(tokens))}
        room = max(64, 2 * len(self._slots))
        self._tokens = torch.zeros(room, dtype=torch.long, device=device)
        self._values = torch.zeros(room, device=device)
        self._tokens[: len(self._slots)] = torch.tensor(list(self._slots), dtype=torch.long)

    @property
    def tokens(self) -> torch.Tensor:
        """The tokens, oldest first."""
        return self._tokens[: len(self._slots)]

    @property
    def values(self) -> torch.Tensor:
        """Their values."""
        return self._values[: len(self._slots)]

    def __contains__(self, token: int) -> bool:
        return token in self._slots

    def slot(self, token: int) -> int:
        """Return a token's place, a new one where it has none."""
        if token not in self._slots:
            slot = self._slots[token] = len(self._slots)
            if slot == len(self._tokens):
                self._tokens = torch.cat((self._tokens, torch.zeros_like(self._tokens)))
                self._values = torch.cat((self._values, torch.zeros_like(self._values)))
            self._tokens[slot] = token
        return self._slots[token]

    def add(self, token: int, value: float) -> None:
        """Add to a token's value."""
        self._values[self.slot(token)] += value
