"""One turn, whatever computes its tokens: its prompt, what was said of its answer, its end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.engine.endings import asked_with
from quantchat.engine.protocol import Event, Finished, Generate, Prefill
from quantchat.engine.stream import AnswerStream
from quantchat.engine.voice import Conversations, Voice

DRAWN_SEEDS = 2**32


class TokenSampler(Protocol):
    """Chooses the tokens of one turn."""

    def sample(self, logits: Any) -> int:
        """Choose a token by its logits of shape [vocabulary]."""

    def accept(self, token: int) -> None:
        """Note that this token is now part of the answer."""


class AnsweringTurn:
    """What every turn has.

    Attributes:
        command: What was asked.
        ids: The prompt and what was sampled.
        decoding: The prompt is computed, and steps give tokens.
    """

    decoding = False

    def __init__(
        self,
        voice: Voice,
        conversations: Conversations,
        command: Generate,
        cancelled: Callable[[], bool],
        emit: Callable[[Event], None],
    ) -> None:
        self.command = command
        self.ids: list[int] = []
        self._voice, self._conversations, self._emit = voice, conversations, emit
        self._cancelled = cancelled
        self._started = time.perf_counter()
        self._begun = self._stopped = False

    @property
    def name(self) -> str:
        """The turn's name in the protocol."""
        return self.command.turn

    @property
    def ended(self) -> bool:
        """Whether the answer is complete or no longer wanted; `finish` then gives the last event."""
        if not self._stopped and self._cancelled():
            self._stopped = True
        return self._stopped or (self._begun and self._complete)

    @property
    def _complete(self) -> bool:
        return self.stream.stopped_itself or len(self.stream.tokens) >= self._limit

    def _begin(self) -> None:
        """Render the prompt.

        Raises:
            GenerationError: if the prompt does not fit the context window or the template refuses it.
        """
        command, sampling = self.command, self.command.sampling
        voice = self._voice = asked_with(self._voice, command.template)
        fitted = self._conversations.fit(
            command.session, command.messages, sampling.max_new_tokens, command.resume, command.template
        )
        self.ids = list(fitted.prompt.ids)
        self._dropped = fitted.dropped
        self._conversations.dropped(command.session, fitted.dropped)
        self._prompt_tokens = len(self.ids)
        room = voice.window - len(self.ids) if voice.window else sampling.max_new_tokens
        self._limit, self._window_limits = min(sampling.max_new_tokens, room), room < sampling.max_new_tokens
        self._seed = _seed(sampling)
        self._sampler = self._new_sampler(self._seed)
        self.stream = AnswerStream(voice, command, fitted.prompt, self._emit)
        self._begun = True

    def _new_sampler(self, seed: int | None) -> TokenSampler:
        """Return what chooses the tokens; the prompt is in `ids`."""
        raise NotImplementedError

    def _tell_prefill(self, done: int, reused: int = 0) -> None:
        self._emit(Prefill(turn=self.name, done=done, total=self._prompt_tokens, reused=reused, dropped=self._dropped))

    def take(self, logits: Any) -> int:
        """Sample the next token from its logits of shape [vocabulary], and add it to the answer."""
        token = self._sampler.sample(logits)
        self._sampler.accept(token)
        self.ids.append(token)
        self.stream.take(token)
        return token

    def finish(self) -> Finished:
        """Send what is left of the text and return the last event."""
        if not self._begun:
            return Finished(turn=self.name, reason="stopped", statistics=TurnStatistics())
        self.stream.flush()
        reason = self.stream.reason(stopped=self._stopped, window_limits=self._window_limits)
        return Finished(turn=self.name, reason=reason, statistics=self._statistics())

    def _statistics(self) -> TurnStatistics:
        first, last = self.stream.first or time.perf_counter(), self.stream.latest
        return TurnStatistics(
            prompt_tokens=self._prompt_tokens,
            new_tokens=len(self.stream.tokens),
            prefill_seconds=first - self._started,
            decode_seconds=last - first if self.stream.tokens else 0.0,
            seed=self._seed,
        )


def _seed(sampling: SamplingSettings) -> int | None:
    """The seed of a turn, drawn where none is set; None for greedy decoding."""
    if sampling.temperature == 0:
        return None
    return secrets.randbelow(DRAWN_SEEDS) if sampling.seed is None else sampling.seed
