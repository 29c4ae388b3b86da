"""How much of the context window a session takes, and what of it the model no longer sees: known before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from quantchat.domain.chat import CONTEXT_FULL, ChatMessage, Session, new_id
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited, LoadReport
from quantchat.errors import ErrorReport, QuantchatError
from quantchat.services.conversation import Conversation
from quantchat.services.facts import ContextMeasured, Listener
from quantchat.services.library import Library

PAUSE_SECONDS = 0.5
"""What is written is counted after so long without a key."""
SOON_SECONDS = 0.05

Shown = tuple[Session, str]
"""The session on the screen, and what stands in the prompt."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the engine would be asked with it now.

    Attributes:
        tokens: Of the prompt.
        window: The model's context window; 0 if unknown.
        reserve: Tokens that are kept free for the reply.
        unseen: The last message that finds no room in the window; None if all do.
        refusal: Why it cannot be sent at all.
    """

    tokens: int = 0
    window: int = 0
    reserve: int = 0
    unseen: str | None = None
    refusal: ErrorReport | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    session: str
    asked: list[str]
    messages: list[ChatMessage]
    reserve: int
    report: LoadReport
    template: str = ""


class ContextMeter:
    """Measures the session that is shown, one request at a time, and only while a model is there to do it.

    Attributes:
        shown: Gives the session on the screen and what stands in the prompt.
    """

    def __init__(self, library: Library, conversation: Conversation, listener: Listener) -> None:
        self._library, self._conversation, self._listen = library, conversation, listener
        self.shown: Callable[[], Shown | None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None
        self._asked: _Request | None = None
        self._answered: dict[str, tuple[_Request, Measured]] = {}
        self._touched = False

    @property
    def pending(self) -> bool:
        """Whether a change waits to be measured."""
        return self._timer is not None

    def of(self, session: Session) -> Measured | None:
        """Return what was last measured of a session with the model that is loaded."""
        request, measured = self._answered.get(session.id, (None, None))
        return measured if request is not None and request.report is self._library.loaded else None

    def unseen(self, session: Session) -> str | None:
        """Return the last message that the model does not see, in the answer that it writes or the one to come."""
        turn = self._conversation.turn_of(session.id)
        if turn is not None and turn.prompt_tokens:
            return _last([message.id for message in session.asked(turn.message.parent)], turn.dropped)
        measured = self.of(session)
        return measured.unseen if measured is not None else None

    def touch(self, *, written: bool = False) -> None:
        """Say that something changed that counts; what is being `written` is counted when the keys rest."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS if written else SOON_SECONDS, self._measure)

    def close(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
        self.shown = lambda: None

    def on_event(self, event: protocol.Event | EngineExited) -> None:
        """Take the engine's answers."""
        match event:
            case EngineExited():
                self._asked = None
            case protocol.TokenCount() | protocol.RequestFailed():
                if self._asked is not None and event.request == self._asked.id:
                    self._take(self._asked, event)
            case _:
                return

    def _measure(self) -> None:
        self._timer = None
        request = self._wanted()
        if request is None or self._is_known(request):
            return
        if self._asked is not None and self._asked.report is request.report:
            self._touched = True
            return
        self._asked, self._touched = request, False
        try:
            self._library.send(
                protocol.CountTokens(
                    request=request.id,
                    messages=request.messages,
                    session=request.session,
                    reserve=request.reserve,
                    template=request.template,
                )
            )
        except QuantchatError:
            # The engine is gone; the next one is asked.
            self._asked = None

    def _wanted(self) -> _Request | None:
        report, shown = self._library.loaded, self.shown()
        if report is None or shown is None or self._conversation.turn_of(shown[0].id) is not None:
            return None
        session, draft = shown
        messages = session.prompt()
        if draft.strip():
            messages.append(ChatMessage("user", draft))
        if not messages:
            return None
        reserve = self._conversation.sampling_of(session).max_new_tokens
        asked = [message.id for message in session.asked()]
        return _Request(
            id=new_id(),
            session=session.id,
            asked=asked,
            messages=messages,
            reserve=reserve,
            report=report,
            template=session.template,
        )

    def _is_known(self, request: _Request) -> bool:
        known, _ = self._answered.get(request.session, (None, None))
        return known is not None and _question(known) == _question(request)

    def _take(self, request: _Request, event: protocol.TokenCount | protocol.RequestFailed) -> None:
        self._asked = None
        if isinstance(event, protocol.TokenCount):
            unseen = _last(request.asked, event.dropped)
            measured = Measured(tokens=event.tokens, window=event.window, reserve=event.reserve, unseen=unseen)
        else:
            # After an answer and with an empty prompt there is nothing that could be sent, whatever its length.
            asks = request.messages[-1].role == "user"
            refusal = event.error if asks and event.error.code == CONTEXT_FULL else None
            measured = Measured(window=request.report.context_window, refusal=refusal)
        now = {session: known for session, known in self._answered.items() if known[0].report is request.report}
        self._answered = {**now, request.session: (request, measured)}
        self._listen(ContextMeasured(session=request.session))
        if self._touched:
            self._measure()


def _question(request: _Request) -> tuple[int, int, str, list[str], list[ChatMessage]]:
    return id(request.report), request.reserve, request.template, request.asked, request.messages


def _last(asked: list[str], dropped: int) -> str | None:
    """The last of the first `dropped` messages."""
    gone = asked[:dropped]
    return gone[-1] if gone else None
