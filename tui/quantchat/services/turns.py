"""One request to the engine and its answer, while it is under way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from quantchat.domain.chat import Message, Session
from quantchat.domain.generation import TurnStatistics
from quantchat.domain.thinking import Channel

Stage = Literal["prefill", "decoding", "stopping"]


@dataclass(frozen=True)
class Waiting:
    """A turn that has not started: a prompt, or (`prompt` None) another answer to the message `parent`."""

    session: str
    prompt: str | None
    parent: str | None = None


@dataclass
class Turn:
    """A running turn. Times are monotonic seconds of this process."""

    id: str
    session: Session
    message: Message
    stage: Stage = "prefill"
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    tokens: int = 0
    prefill_done: int = 0
    prompt_tokens: int = 0
    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def take(self, text: str, tokens: int, channel: Channel = "answer") -> None:
        """Count streamed text."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        if self.stage == "prefill":
            self.stage = "decoding"
        self.tokens = tokens
        (self.thoughts if channel == "thinking" else self.parts).append(text)

    @property
    def text(self) -> str:
        """The answer so far."""
        return _joined(self.parts)

    @property
    def thinking(self) -> str:
        """What was thought so far."""
        return _joined(self.thoughts)

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the request to the first text; None before it."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def tokens_per_second(self) -> float:
        """Speed since the first token, as seen from here."""
        if self.first_token is None or self.tokens < 2:
            return 0.0
        elapsed = time.monotonic() - self.first_token
        return (self.tokens - 1) / elapsed if elapsed > 0 else 0.0

    def statistics(self) -> TurnStatistics:
        """What is known here of a turn whose own statistics never came."""
        now = time.monotonic()
        first = self.first_token if self.first_token is not None else now
        return TurnStatistics(
            prompt_tokens=self.prompt_tokens,
            new_tokens=self.tokens,
            prefill_seconds=first - self.started,
            decode_seconds=now - first,
        )


def _joined(parts: list[str]) -> str:
    """Join the parts, in place: the next call meets one part and what came since."""
    if len(parts) > 1:
        parts[:] = ["".join(parts)]
    return parts[0] if parts else ""
