"""One request to the engine and its answer, before it starts and while it is under way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Literal

from quantchat import __version__
from quantchat.domain.chat import ChatMessage, Message, RunCard, Session
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel
from quantchat.engine.protocol import LoadReport
from quantchat.errors import UsageError

Stage = Literal["prefill", "decoding", "stopping"]


@dataclass(frozen=True)
class Waiting:
    """A turn that has not started: a prompt, another answer to the message `parent`, or the rest of `resumed`."""

    session: str
    prompt: str | None = None
    parent: str | None = None
    resumed: str | None = None


def begin(session: Session, waiting: Waiting) -> tuple[list[ChatMessage], Message]:
    """What a turn asks, and the message that takes its answer.

    Raises:
        UsageError: if another program has deleted what it goes on from.
    """
    needed = waiting.resumed or waiting.parent
    if needed is not None and needed not in session.messages:
        raise UsageError("The message to go on from was deleted while this waited")
    if waiting.resumed is not None:
        answer = session.messages[waiting.resumed]
        return session.prompt(answer.parent), answer
    if waiting.prompt is not None:
        if waiting.prompt in session.queued:
            session.queued.remove(waiting.prompt)
        question = session.append("user", waiting.prompt).id
    else:
        question = waiting.parent or ""
    return session.prompt(question), session.append("assistant", "", parent=question)


def run_card(
    model: ModelInfo | None, report: LoadReport | None, versions: Mapping[str, str], sampling: SamplingSettings
) -> RunCard:
    """Note what writes an answer, and how; `versions` are those of the engine's libraries."""
    return RunCard(
        model=model.name if model else "",
        path=model.path if model else "",
        revision=(model.revision or "") if model else "",
        quantization=model.quant.label() if model else "",
        kernel=report.kernel if report else "",
        device=report.device if report else "",
        decoding=report.decoding if report else "",
        sampling=sampling,
        versions={"quantchat": __version__, **versions} if versions else {},
    )


class Backlog:
    """The turns that wait, first come first served; one whose session is being answered lets others pass."""

    def __init__(self) -> None:
        self._turns: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, waiting: Waiting) -> None:
        """Put a turn at the end."""
        self._turns.append(waiting)

    def take(self, busy: Container[str]) -> Waiting | None:
        """Take the first turn whose session is not busy."""
        found = next((waiting for waiting in self._turns if waiting.session not in busy), None)
        if found is not None:
            self._turns.remove(found)
        return found

    def take_back(self, session_id: str) -> Waiting | None:
        """Take the last turn of a session."""
        found = next((waiting for waiting in reversed(self._turns) if waiting.session == session_id), None)
        if found is not None:
            self._turns.reverse()
            self._turns.remove(found)
            self._turns.reverse()
        return found

    def of(self, session_id: str) -> int:
        """Count the turns of a session."""
        return sum(waiting.session == session_id for waiting in self._turns)

    def drop(self, session_id: str) -> None:
        """Drop the turns of a session."""
        self._turns = deque(waiting for waiting in self._turns if waiting.session != session_id)

    def clear(self) -> list[str]:
        """Drop all turns; return the sessions that waited."""
        sessions = list(dict.fromkeys(waiting.session for waiting in self._turns))
        self._turns.clear()
        return sessions


@dataclass
class Turn:
    """A running turn. Times are monotonic seconds of this process.

    Attributes:
        tokens: New tokens of this turn; `text` also holds what an answer that goes on had before.
        reused: Prompt tokens that came from the KV cache.
        dropped: Messages that found no room in the context window.
        begun: What the answer cost before, if it goes on.
    """

    id: str
    session: Session
    message: Message
    begun: TurnStatistics | None = None
    stage: Stage = "prefill"
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    tokens: int = 0
    prefill_done: int = 0
    prompt_tokens: int = 0
    reused: int = 0
    dropped: int = 0
    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts.append(self.message.text)
        self.thoughts.append(self.message.thinking)

    def take(self, text: str, tokens: int, channel: Channel = "answer") -> None:
        """Count streamed text."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        if self.stage == "prefill":
            self.stage = "decoding"
        self.tokens = tokens
        (self.thoughts if channel == "thinking" else self.parts).append(text)

    def read(self, done: int, total: int, reused: int, dropped: int) -> None:
        """Note how far the prompt has been read."""
        self.prefill_done, self.prompt_tokens, self.reused, self.dropped = done, total, reused, dropped

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
            reused_tokens=self.reused,
        )


def _joined(parts: list[str]) -> str:
    """Join the parts, in place: the next call meets one part and what came since."""
    if len(parts) > 1:
        parts[:] = ["".join(parts)]
    return parts[0] if parts else ""
