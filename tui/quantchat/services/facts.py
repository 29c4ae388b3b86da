"""What services tell the screen: small facts, delivered on the event loop in the order in which they happened."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from quantchat.domain.thinking import Channel
from quantchat.errors import ErrorReport


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all facts."""


class ModelsChanged(Fact, frozen=True, kw_only=True):
    """The list of models was scanned anew."""


class EngineChanged(Fact, frozen=True, kw_only=True):
    """The engine's phase, its loaded model or the progress of a load changed."""


class ServersChanged(Fact, frozen=True, kw_only=True):
    """A server was asked, answered, came or went, or the one of the loaded model is in another state."""


class PullChanged(Fact, frozen=True, kw_only=True):
    """A download began, moved or ended."""


class QuantizeChanged(Fact, frozen=True, kw_only=True):
    """A quantization began, moved or ended."""


class QualityChanged(Fact, frozen=True, kw_only=True):
    """An evaluation began, moved or ended, or what is known of the models' quality is another."""


class SessionsChanged(Fact, frozen=True, kw_only=True):
    """A session was made, renamed, deleted, or changed its place in the list."""


class IndexChanged(Fact, frozen=True, kw_only=True):
    """The index of sessions, without which a search is slower, is being made, got further, or is there."""


class SessionChanged(Fact, frozen=True, kw_only=True):
    """Messages of one session came, went or changed, other than by streamed text; `answered` when an answer ended."""

    session: str
    answered: bool = False


class TextArrived(Fact, frozen=True, kw_only=True):
    """Streamed text was added to a message."""

    session: str
    message: str
    text: str
    channel: Channel = "answer"


class TurnProgress(Fact, frozen=True, kw_only=True):
    """Prefill went on or tokens were counted."""

    session: str


class WarmChanged(Fact, frozen=True, kw_only=True):
    """The engine keeps the KV caches of other sessions than before."""


class ContextMeasured(Fact, frozen=True, kw_only=True):
    """What of a session the model sees changed, or how much of its context window that takes."""

    session: str


class Notice(Fact, frozen=True, kw_only=True):
    """Something the user should read; `dialog` when it is too long for a toast."""

    report: ErrorReport
    severity: Literal["information", "warning", "error"] = "error"
    dialog: bool = False


Listener = Callable[[Fact], None]
Beside = Callable[[Listener], Coroutine[Any, Any, None]]
"""Work that lasts as long as the screen, and may tell it something."""
