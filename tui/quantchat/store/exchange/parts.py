"""What a session is made of, as far as formats differ in what of it they can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantchat.domain.chat import UNTITLED, Message, RunCard, Session
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.text import plain


@dataclass(frozen=True)
class Part:
    """A part of sessions.

    Attributes:
        words: Its name in a sentence.
        found: Whether a session has it.
    """

    name: str
    words: str
    found: Callable[[Session], bool]


def _any(test: Callable[[Message], object]) -> Callable[[Session], bool]:
    return lambda session: any(test(message) for message in session.branch())


def _has_card(message: Message) -> bool:
    run = message.run
    return message.statistics is not None or (run is not None and run != RunCard(model=run.model))


def _ended_oddly(message: Message) -> bool:
    odd = message.finish is not None and message.finish != "stop"
    return bool(odd or message.error or message.given or message.edited_from)


def _has_controls(session: Session) -> bool:
    texts = [session.system_prompt, *(text for m in session.branch() for text in (m.text, m.thinking))]
    return any(plain(text) != text for text in texts)


def _has_settings(session: Session) -> bool:
    return bool(session.model or session.preset or session.template or session.sampling != SamplingOverrides())


def _unanswered(session: Session) -> bool:
    last = next((message for message in reversed(session.branch()) if message.text), None)
    return last is not None and last.role != "assistant"


def _has_turns(session: Session) -> bool:
    return sum(message.role == "user" for message in session.branch()) > 1


PARTS = (
    Part("branches", "other branches", lambda session: len(session.branch()) < len(session.messages)),
    Part("thinking", "what models thought", _any(lambda message: message.thinking)),
    Part("models", "which model answered", _any(lambda message: message.run)),
    Part("cards", "run cards", _any(_has_card)),
    Part("endings", "how answers began and ended", _any(_ended_oddly)),
    Part("times", "times", _any(lambda _message: True)),
    Part("title", "the title", lambda session: session.title != UNTITLED),
    Part("system", "the system prompt", lambda session: bool(session.system_prompt)),
    Part("settings", "settings", _has_settings),
    Part("tags", "tags", lambda session: bool(session.tags)),
    Part("marks", "pin and archive", lambda session: session.pinned or session.archived),
    Part("empty", "messages without text", _any(lambda message: not message.text)),
    Part("controls", "control characters", _has_controls),
    Part("turns", "what came before each question", _has_turns),
    Part("unanswered", "questions without an answer", _unanswered),
    Part("unsent", "what was not sent", lambda session: bool(session.draft or session.queued or session.edits)),
    Part("deleted", "what was deleted", lambda session: bool(session.deleted)),
)
PRIVATE = frozenset({"unsent", "deleted"})
"""What no format holds: nobody who passes a session on means to pass that on."""
EVERYTHING = frozenset(part.name for part in PARTS) - PRIVATE


def lacking(holds: frozenset[str]) -> tuple[str, ...]:
    """Name what a format that holds some parts cannot hold."""
    return tuple(part.words for part in PARTS if part.name not in holds)


def losses(session: Session, holds: frozenset[str]) -> tuple[str, ...]:
    """Name what of one session a format that holds some parts leaves out."""
    return tuple(part.words for part in PARTS if part.name not in holds and part.found(session))
