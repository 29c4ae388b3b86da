"""One side of a comparison: what is chosen for it, how far it is, and what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from quantchat.domain import tree
from quantchat.domain.chat import Message, Session
from quantchat.domain.divergence import Place
from quantchat.domain.generation import FinishReason, SamplingOverrides, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.thinking import Channel
from quantchat.errors import ErrorReport
from quantchat.services.comparing.voices import Voice
from quantchat.services.loads import LoadStatus
from quantchat.services.turns import Turn

Stage = Literal["", "waiting", "loading", "answering", "done", "stopped", "failed"]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What answers on a side.

    Attributes:
        kernel: As in `Load`; None leaves it to the engine.
        preset: Name of the preset that `sampling` came from; empty for none.
        sampling: Wins over the user's own defaults. What a model recommends counts on neither side: it would differ.
    """

    model: ModelInfo
    kernel: str | None = None
    preset: str = ""
    sampling: SamplingOverrides = SamplingOverrides()

    @property
    def title(self) -> str:
        """The model, and what of the choice is not the usual."""
        return " · ".join(part for part in (self.model.name, self.kernel, self.preset) if part)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides are asked.

    Attributes:
        base: The conversation that it goes on with, its system prompt and template; None for an empty one.
        seed: Of both answers; None draws one.
    """

    prompt: str
    base: Session | None = None
    system_prompt: str = ""
    seed: int | None = None

    def session(self, choice: Choice) -> Session:
        """Make the conversation of a side, down to the question; nobody else has it."""
        base = self.base
        head = _answered(base) if base is not None else None
        if base is None or head is None:
            session = Session.new()
            session.system_prompt = base.system_prompt if base is not None else self.system_prompt
            session.template = base.template if base is not None else ""
        else:
            session = tree.fork(base, head)
        session.model, session.preset, session.sampling = choice.model.path, choice.preset, choice.sampling
        session.append("user", self.prompt)
        return session


def _answered(session: Session) -> str | None:
    """The last answer that is over: what streams, and a question without an answer, is no part of a comparison."""
    over = (m for m in reversed(session.branch()) if m.role == "assistant" and m.finish is not None and m.text)
    return next((message.id for message in over), None)


@dataclass
class Side:
    """One side while it answers.

    Attributes:
        track: Its number in the divergence; it stays when sides are swapped.
        unloading: The model that makes room for this side's just now.
        loading: How far the load is, while its model loads.
        place: The first token that differs from the other side's.
    """

    track: int
    choice: Choice
    stage: Stage = ""
    session: Session | None = None
    answer: Message | None = None
    turn: Turn | None = None
    voice: Voice | None = None
    unloading: str = ""
    loading: LoadStatus | None = None
    error: ErrorReport | None = None
    place: Place | None = None
    notes: list[str] = field(default_factory=list)

    def begin(self, question: Question) -> None:
        """Forget what was said, and wait for an engine."""
        self.session = question.session(self.choice)
        self.stage, self.answer, self.turn, self.loading = "waiting", None, None, None
        self.error = self.place = None
        self.unloading, self.notes = "", []

    def end(self, reason: FinishReason, statistics: TurnStatistics, error: ErrorReport | None = None) -> None:
        """Keep what was said, and why it ended."""
        turn, self.turn = self.turn, None
        if turn is not None:
            message = turn.message
            message.text, message.thinking, message.finish = turn.text, turn.thinking, reason
            message.statistics, message.error = statistics, error
        self.stage = "failed" if error is not None else "stopped" if reason == "stopped" else "done"
        self.loading, self.error = None, error

    @property
    def busy(self) -> bool:
        """Whether it is not over."""
        return self.stage in ("waiting", "loading", "answering")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A side is in another state, or is another step further."""

    side: int


class Spoke(Change, frozen=True, kw_only=True):
    """A side said something more."""

    message: str
    text: str
    channel: Channel


Watcher = Callable[[Change], None]
