"""Greedy answers through a session's KV cache, in chunks as turns compute them, and the reference without one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from engine import zoo
from quantchat.engine.forward import decoder_layers
from quantchat.engine.kvcache import SessionCache

ANSWER = 5

model_of = cache(zoo.make)


def words(count: int, seed: int = 0) -> list[int]:
    """Return some token ids, the same for the same seed."""
    chosen = random.Random(seed)
    return [chosen.randrange(2, zoo.VOCABULARY) for _ in range(count)]


@cache
def _reference(kind: str, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(zoo.greedy(model_of(kind), list(prompt), count))


def reference(kind: str, prompt: Sequence[int], count: int = ANSWER) -> list[int]:
    """The greedy answer, everything recomputed for every token."""
    return list(_reference(kind, tuple(prompt), count))


class Failed(Exception):
    """What a forward pass raises in these tests."""


class Talk:
    """One session of a tiny model."""

    def __init__(self, kind: str, chunk: int = 7) -> None:
        self.kind, self.chunk = kind, chunk
        self.model = model_of(kind)
        self.cache = SessionCache(self.model)
        self.reused = 0

    def answer(self, prompt: Sequence[int], count: int = ANSWER) -> list[int]:
        """Reuse what can be reused, compute the rest, and answer."""
        self.reused = self.cache.reuse(prompt)
        assert self.cache.ids == list(prompt[: self.reused])
        assert self.reused < len(prompt)
        return self.decode(self.prefill(prompt[self.reused :]), count)

    def prefill(self, rest: Sequence[int]) -> Any:
        """Compute the rest of a prompt; return the logits behind it."""
        while len(rest) > 1:
            part = rest[: min(self.chunk, len(rest) - 1)]
            self.compute(part)
            rest = rest[len(part) :]
        self.cache.snapshot()
        return self.compute(rest)

    def decode(self, logits: Any, count: int) -> list[int]:
        answer = [int(logits.argmax())]
        while len(answer) < count:
            answer.append(int(self.compute(answer[-1:]).argmax()))
        return answer

    @torch.inference_mode()
    def compute(self, tokens: Sequence[int]) -> Any:
        inputs = torch.tensor([list(tokens)])
        logits = self.model(input_ids=inputs, use_cache=True, logits_to_keep=1, **self.cache.arguments).logits[0, -1]
        self.cache.append(tokens)
        return logits

    def right(self, prompt: Sequence[int], count: int = ANSWER) -> bool:
        """Whether the answer is the one without reuse."""
        return zoo.same_text(self.model, list(prompt), reference(self.kind, prompt, count), self.answer(prompt, count))


@contextmanager
def failing_at(model: Any, layer: int, passes: int = 0) -> Iterator[None]:
    """Let a decoder layer raise, after some passes that come through."""
    left = [passes]

    def check(*_: Any) -> None:
        if left[0] == 0:
            raise Failed
        left[0] -= 1

    layers = decoder_layers(model)
    handle = layers[layer % len(layers)].register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
