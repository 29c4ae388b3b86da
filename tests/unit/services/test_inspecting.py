"""Asking the engine for prompts: answers, refusals, an engine that ends; and what the table says of messages."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from quantchat.domain.chat import ChatMessage, Session
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.errors import EngineError, EngineGone, ErrorReport, GenerationError, UsageError
from quantchat.services.inspecting import Inspected, PromptInspector

REFUSAL = ErrorReport(code="server-cannot", title="This server does not tell its tokens")
EXITED = p.EngineExited(code=1, signal=None, log_tail="", expected=False)


class Desk:
    """A library that keeps what it is sent, and a conversation that knows how to sample."""

    def __init__(self) -> None:
        self.sent: list[p.RenderPrompt] = []
        self.loaded: Any = SimpleNamespace(name="alpha")
        self.inspector = PromptInspector(self, self)  # type: ignore[arg-type]

    def send(self, command: p.RenderPrompt) -> None:
        self.sent.append(command)

    def sampling_of(self, session: Session) -> SamplingSettings:
        return SamplingSettings(max_new_tokens=77)

    async def asked(self, session: Session, draft: str = "") -> asyncio.Task[Inspected]:
        task = asyncio.ensure_future(self.inspector.inspect(session, draft))
        await asyncio.sleep(0)
        return task


@pytest.fixture
def session() -> Session:
    session = Session.new()
    session.system_prompt, session.template = "Be brief.", "{{ messages }}"
    session.append("user", "Why?")
    return session


async def test_a_session_is_asked_about_as_it_would_be_sent(session: Session) -> None:
    desk = Desk()
    task = await desk.asked(session, "And how?")
    (sent,) = desk.sent
    assert [message.content for message in sent.messages] == ["Be brief.", "Why?", "And how?"]
    assert (sent.session, sent.reserve, sent.template) == (session.id, 77, "{{ messages }}")
    desk.inspector.on_event(p.RenderedPrompt(request="another", text="no", tokens=1))
    desk.inspector.on_event(p.RenderedPrompt(request=sent.request, text="yes", tokens=1))
    assert (await task).prompt.text == "yes"
    # What comes late or twice is nobody's.
    desk.inspector.on_event(p.RenderedPrompt(request=sent.request, text="again", tokens=1))


async def test_a_refusal_and_an_engine_that_ends_are_told(session: Session) -> None:
    desk = Desk()
    refused, lost = await desk.asked(session), await desk.asked(session)
    desk.inspector.on_event(p.RequestFailed(request=desk.sent[0].request, error=REFUSAL))
    desk.inspector.on_event(EXITED)
    with pytest.raises(GenerationError, match="does not tell its tokens"):
        await refused
    with pytest.raises(EngineGone):
        await lost


async def test_without_a_model_or_an_engine_nothing_waits(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    with pytest.raises(UsageError, match="nothing to ask"):
        await desk.inspector.inspect(Session.new(), "  ")
    error = EngineError("The engine is not running")
    monkeypatch.setattr(desk, "send", lambda command: (_ for _ in ()).throw(error))
    with pytest.raises(EngineError, match="not running"):
        await desk.inspector.inspect(session)
    desk.loaded = None
    with pytest.raises(UsageError, match="No model is loaded"):
        await desk.inspector.inspect(session)


def inspected(*codes: str, shown: tuple[int, ...] = (0, 3)) -> Inspected:
    talk = [
        ChatMessage("system", "s"),
        ChatMessage("user", "old"),
        ChatMessage("assistant", ""),
        ChatMessage("user", "n"),
    ]
    pieces = [p.PromptPiece(text="<s>", tokens=1, special=True)]
    pieces += [p.PromptPiece(text=talk[index].content, tokens=2, message=index) for index in shown]
    warnings = tuple(p.PromptWarning(code=code, cause="A \x1b[31mcause\u200b", remedy="A remedy") for code in codes)
    text = "".join(piece.text for piece in pieces)
    tokens = sum(piece.tokens for piece in pieces)
    prompt = p.RenderedPrompt(request="r", text=text, tokens=tokens, window=50, pieces=tuple(pieces), warnings=warnings)
    return Inspected(prompt=prompt, messages=tuple(talk), model="alpha")


def test_messages_that_are_not_there_say_why() -> None:
    assert [part.state for part in inspected("context-overflow").parts()] == ["", "no room", "", "", ""]
    assert [part.state for part in inspected("message-missing").parts()] == ["", "not shown", "", "", ""]
    # One in the middle is not what had no room.
    assert inspected("context-overflow", shown=(0, 1)).parts()[3].state == "not shown"


def test_the_shares_add_up_and_the_report_is_safe_to_print() -> None:
    found = inspected("doubled-bos")
    parts = found.parts()
    assert [part.tokens for part in parts] == [2, 0, 0, 2, 1]
    assert sum(part.share for part in parts) == pytest.approx(1)
    report = found.report(60)
    assert report.startswith(
        "5 tokens, 10.0% of a window of 50, for alpha\n\n! A <U+001B>[31mcause<U+200B>\n  A remedy\n"
    )
    assert "\x1b" not in report
    assert report.endswith("<s>sn")
