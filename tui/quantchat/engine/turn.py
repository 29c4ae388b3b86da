"""One turn on the worker thread: prompt, prefill in chunks, decoding token by token, its end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from quantchat.domain.generation import TurnStatistics
from quantchat.engine.answering import AnsweringTurn
from quantchat.engine.forward import Forward, TurnStopped
from quantchat.engine.lookup import PromptLookup
from quantchat.engine.protocol import Finished, Generate
from quantchat.engine.sampling import Sampler

if TYPE_CHECKING:
    from quantchat.engine.loader import LoadedModel
    from quantchat.engine.sessions import SessionStates
    from quantchat.engine.worker import Emit

CPU_CHUNK, GPU_CHUNK = 256, 2048
"""Prompt tokens of one pass: no measurable cost against the whole prompt at once, and bounded memory."""
SHARED = 4
"""While others decode, a chunk is this much smaller, so that their text does not stand still for long."""
DRAFT = 8
"""Most tokens that prompt lookup proposes for one pass."""


class Turn(AnsweringTurn, ABC):
    """A turn whose tokens torch computes."""

    def __init__(
        self, loaded: LoadedModel, states: SessionStates, command: Generate, cancelled: Callable[[], bool], emit: Emit
    ) -> None:
        super().__init__(loaded, states, command, cancelled, emit)
        self._loaded, self._states = loaded, states

    @abstractmethod
    def prefill(self, forward: Forward, *, alone: bool) -> None:
        """Compute the next part of the prompt; with the last one comes the first token.

        Raises:
            GenerationError: if the prompt does not fit the context window or the template refuses it.
        """

    def _new_sampler(self, seed: int | None) -> Sampler:
        loaded, sampling = self._loaded, self.command.sampling
        return Sampler(sampling, seed=seed, tokenizer=loaded.tokenizer, prompt=self.ids, device=loaded.device)


class RunningTurn(Turn):
    """A turn by our own loop.

    Its whole state is the ids so far and a cache of a part of them. Whatever happened, the next pass computes the ids
    that the cache lacks, and the logits after the last one give the next token.
    """

    def _begin(self) -> None:
        super()._begin()
        self.lookup = PromptLookup(self.ids, self._voice.eos_ids)
        self.cache = self._states.open(self.command.session, len(self.ids))
        self._reused = self.cache.reuse(self.ids)
        self._tell_prefill(self._reused, self._reused)

    @property
    def lacking(self) -> list[int]:
        """The ids that the cache does not hold yet; the last one's logits give the next token."""
        return self.ids[len(self.cache.ids) :]

    def prefill(self, forward: Forward, *, alone: bool) -> None:
        """Compute the next chunk."""
        if not self._begun:
            self._begin()
        if len(self.lacking) == 1:
            # Where another answer to the same prompt begins; caches that can be cropped need no memory of it.
            self.cache.snapshot()
        chunk = self.lacking[: self._chunk_size(alone=alone)]
        begun = time.perf_counter()
        try:
            with forward.interruptible(self._cancelled):
                logits = forward(self.cache, chunk)
        except TurnStopped:
            self._stopped = True
            return
        if forward.threads is not None:
            forward.threads.took(len(chunk), time.perf_counter() - begun)
        if not self.stream.tokens:
            self._tell_prefill(len(self.cache.ids), self._reused)
        if not self.lacking:
            self.decoding = True
            self.take(logits[-1])

    def _chunk_size(self, *, alone: bool) -> int:
        size = GPU_CHUNK if self._loaded.device.startswith("cuda") else CPU_CHUNK
        size = size if alone else size // SHARED
        left = len(self.lacking)
        return left - 1 if 1 < left <= size and not self.cache.plain else size

    def recover(self) -> None:
        """Cut the cache to what is certain after something went wrong with it; `prefill` computes the rest again."""
        self.cache.recover()
        self.decoding = len(self.lacking) == 1

    def step(self, forward: Forward) -> None:
        """Compute the token after the last one; more where prompt lookup guesses right."""
        begun = time.perf_counter()
        lacking = self.lacking
        drafts = self._drafts() if len(lacking) == 1 else []
        logits = forward(self.cache, [*lacking, *drafts], keep=len(drafts) + 1)
        accepted = self._take_while_right(logits, drafts)
        seconds = time.perf_counter() - begun
        self.lookup.measured(len(drafts), accepted, seconds)
        if forward.threads is not None:
            forward.threads.took(len(lacking) + len(drafts), seconds)

    def _drafts(self) -> list[int]:
        if not self.cache.plain or self.command.sampling.seed is not None:
            # A pass over several tokens rounds differently, and whether one is worth it depends on the clock: a seed
            # that somebody has set asks for the same text again.
            return []
        return self.lookup.propose(min(DRAFT, self._limit - len(self.stream.tokens) - 1))

    def _take_while_right(self, logits: Any, drafts: Sequence[int]) -> int:
        """Sample row by row until the model says something else than the drafts; return how many were right.

        Each row is sampled as it would have been alone, so that the text is the same with and without drafts.
        """
        accepted = 0
        while self.take(logits[accepted]) == next(iter(drafts[accepted:]), None) and not self.ended:
            accepted += 1
        if accepted < len(drafts):
            self.cache.rollback(len(drafts) - accepted)
        return accepted

    def take(self, logits: Any) -> int:
        """Sample the next token, and add it to the answer."""
        token = super().take(logits)
        self.lookup.append(token)
        return token

    def finish(self) -> Finished:
        """Send what is left of the text, and keep the cache for the session's next turn."""
        event = super().finish()
        if self._begun:
            self._states.keep(self.command, self.cache, self.stream)
        return event

    def _statistics(self) -> TurnStatistics:
        statistics = super()._statistics()
        return msgspec.structs.replace(
            statistics, reused_tokens=self._reused, drafted=self.lookup.drafted, accepted=self.lookup.accepted
        )
