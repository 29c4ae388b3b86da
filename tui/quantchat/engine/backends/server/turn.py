"""One turn with a server: what is sent, what is tried again, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from openai import APIError

from quantchat.domain.generation import TurnStatistics
from quantchat.engine import protocol as p
from quantchat.engine.backends import Emit
from quantchat.engine.backends.server import tokens
from quantchat.engine.backends.server.answer import Answer, said_before
from quantchat.engine.backends.server.chunks import Chunk, Counts, read_chunk
from quantchat.engine.backends.server.connection import LARGEST_BODY
from quantchat.engine.backends.server.faults import (
    ServerFault,
    cut_fault,
    fault_of,
    filtered_fault,
    page_fault,
    spoken_fault,
)
from quantchat.engine.backends.server.fields import MOST_STOPS, fields_of, refused_settings, rejected
from quantchat.engine.backends.server.room import Room, overflow_of, surely_fits
from quantchat.engine.backends.server.served import STREAM_OPTIONS, Served
from quantchat.engine.backends.server.sse import events
from quantchat.engine.prompt import FORMS
from quantchat.errors import GenerationError, QuantchatError, explained

RETRIES = 4
FIRST_WAIT, LONGEST_WAIT = 0.5, 120.0
"""Seconds; a server that asks to wait longer is given up."""
ONE_BY_ONE = "It answers one at a time: a prompt waits for the answer before it"
MENDS = 24
"""Refusals of one turn that are answered with another form of the same request."""
_ABOUT_ROLES = ("role", "alternat", "system message", "template")
_DONE = b"[DONE]"
_FILTERED = "content_filter"

logger = logging.getLogger(__name__)
End = p.Finished | p.Failed
Waits = Callable[[str], None]


class ServerTurn:
    """A turn; `run` is its whole life, on the event loop."""

    def __init__(
        self, served: Served, command: p.Generate, cancelled: Callable[[], bool], emit: Emit, waits: Waits
    ) -> None:
        self.command, self.cancelled = command, cancelled
        self._served, self._emit, self._waits = served, emit, waits
        self._fields = fields_of(command.sampling, served.dialect)
        self._answer = Answer(command, served.opened, emit)
        self._seeded = "seed" in self._fields.values
        first = served.dropped.get(command.session, 0)
        self._room = Room(command.messages, command.sampling.max_new_tokens, served.window, first)
        self._bias: dict[str, float] = {}
        self._tries = 0

    async def run(self) -> End:
        """Answer; return the last event, whatever happens."""
        try:
            if self._served.turns.locked():
                self._waits(ONE_BY_ONE)
            async with self._served.turns:
                self._waits("")
                await self._prepare()
                await self._until_answered()
        except asyncio.CancelledError:
            self._answer.flush()
            return self._finished("stopped")
        except Exception as error:
            self._answer.flush()
            if not isinstance(error, QuantchatError):
                logger.exception("a turn failed")
            return p.Failed(turn=self.command.turn, error=explained(error, GenerationError, "The answer failed"))
        self._answer.flush()
        self._note()
        return self._finished(self._answer.reason(window_limits=self._room.window_limits))

    def _finished(self, reason: Any) -> End:
        return p.Finished(turn=self.command.turn, reason=reason, statistics=self.statistics)

    @property
    def statistics(self) -> TurnStatistics:
        """What the turn cost so far."""
        return self._answer.statistics(self._fields.seed if self._seeded else None)

    def _note(self) -> None:
        """Remember what was learned for the next turns."""
        served = self._served
        served.thinks = served.thinks or self._answer.thought
        served.counts = served.counts or self._answer.counts.new is not None
        if self.command.session:
            served.dropped[self.command.session] = self._room.dropped

    # Before it is sent

    async def _prepare(self) -> None:
        """Make the conversation fit, and find the tokens of biased texts."""
        served, sampling = self._served, self.command.sampling
        if self.command.resume is not None and not served.dialect.resumes:
            raise cannot_continue(served)
        for text, bias in sampling.logit_bias.items():
            self._bias[str(await self._only_token(text))] = bias
        if self._room.window and tokens.can_count(served):
            await self._fit()
        self._answer.dropped = self._room.dropped
        self._answer.reading(0, self._answer.counts.prompt or 0)

    async def _only_token(self, text: str) -> int:
        """The id of a biased text.

        Raises:
            GenerationError: if the server does not tell it, or it is more than one token.
        """
        try:
            ids = await tokens.text_tokens(self._served, text)
        except GenerationError as error:
            raise rejected(["logit_bias"], "It takes ids of tokens, and does not tell them.") from error
        if len(ids) != 1:
            raise rejected(["logit_bias"], f"It takes single tokens, and {text!r} has {len(ids)}.")
        return ids[0]

    async def _fit(self) -> None:
        """Leave out what does not fit, if it can be counted and may not fit."""
        room = self._room
        partial = said_before(self.command.resume) if self.command.resume else ""
        if surely_fits(room.messages, self.command.sampling.max_new_tokens + len(partial.encode()), room.window):
            return
        try:
            counted = await tokens.count(self._served, room.messages)
            while not room.settle(counted + len(partial) // 3):
                room.drop(counted)
                counted = await tokens.count(self._served, room.messages)
        except (GenerationError, ServerFault) as error:
            if error.report.code not in ("server-cannot", "server-refused", "server-failed", "server-timeout"):
                raise
            # It will say what is wrong with the conversation when it is asked to answer it.
            return
        self._answer.counts = Counts(prompt=counted)

    def _body(self) -> dict[str, Any]:
        served, sampling = self._served, self.command.sampling
        messages = FORMS[served.form](self._room.messages)
        body: dict[str, Any] = {"model": served.name, "messages": tokens.rows(messages)}
        body |= self._fields.values | dict(served.dialect.constant)
        body[served.limit] = self._room.limit
        if not self._seeded:
            body.pop("seed", None)
        if options := STREAM_OPTIONS[served.options]:
            body["stream_options"] = options
        if sampling.stop and len(sampling.stop) <= MOST_STOPS and not served.thinks and served.opened is None:
            body["stop"] = list(sampling.stop)
        if self._bias:
            body["logit_bias"] = self._bias
        if self.command.resume is not None:
            body["messages"].append({"role": "assistant", "content": said_before(self.command.resume)})
            if served.dialect.resumes == "field":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    # Sent

    async def _until_answered(self) -> None:
        mends = 0
        while True:
            try:
                await self._ask_once()
            except Exception as error:
                # A bug of ours is no fault of the server's.
                if not isinstance(error, APIError | OSError | ValueError | ServerFault) and not _is_transport(error):
                    raise
                fault = fault_of(error, self._served.connection)
                if mends < MENDS and not self._answer.begun and self._mended(fault):
                    mends += 1
                    continue
                await self._wait(self._explained(fault))
            else:
                return

    async def _ask_once(self) -> None:
        """Send the request and take the answer.

        Raises:
            ServerFault: if it ended before it was complete.
        """
        async with self._served.connection.stream(self._body()) as response:
            kind = response.headers.get("content-type", "").lower()
            if "html" in kind:
                raise page_fault(self._served.connection)
            if "json" in kind and "stream" not in kind:
                self._take(read_chunk(await _whole(response)))
            else:
                await self._take_stream(response)
        answer = self._answer
        if answer.hit or answer.finish in ("stop", "length"):
            return
        if answer.finish:
            raise self._broken_off(answer.finish)
        raise cut_fault(self._served.connection)

    async def _take_stream(self, response: Any) -> None:
        async for data in events(response.iter_bytes()):
            if data.strip() == _DONE:
                if not self._served.dialect.finishes and not self._answer.finish:
                    self._answer.finish = "stop"
                return
            self._take(read_chunk(data))
            if self._answer.hit:
                return

    def _take(self, chunk: Chunk) -> None:
        if chunk.error:
            raise spoken_fault(chunk.error, self._served.connection)
        self._answer.take(chunk)

    def _broken_off(self, reason: str) -> ServerFault:
        connection = self._served.connection
        if reason == _FILTERED:
            return filtered_fault(connection)
        return cut_fault(connection, f"{connection.host} ended the answer: {reason[:80]}.")

    # Refused

    def _mended(self, fault: ServerFault) -> bool:
        """Change the request so that the reason of a refusal is gone, where the user asked for nothing of it.

        Raises:
            GenerationError: if the question alone does not fit the window.
        """
        overflow = overflow_of(fault)
        if overflow is not None:
            self._room.shrink(overflow)
            self._answer.dropped = self._room.dropped
            self._answer.reading(0, 0)
            return True
        if fault.status not in (400, 422):
            return False
        served, said = self._served, fault.said.lower()
        if "stream_options" in said or "continuous_usage_stats" in said:
            served.options += 1
            return served.options < len(STREAM_OPTIONS)
        if "max_completion_tokens" in said and served.limit == "max_tokens":
            served.limit = "max_completion_tokens"
            return True
        if self._seeded and self.command.sampling.seed is None and "seed" in refused_settings(fault, {"seed": "seed"}):
            self._seeded = False
            return True
        if any(word in said for word in _ABOUT_ROLES) and served.form + 1 < len(FORMS) and self.command.resume is None:
            served.form += 1
            return True
        return False

    def _explained(self, fault: ServerFault) -> ServerFault:
        """Name the settings, or what else of the request, that a server refuses."""
        sampling = self.command.sampling
        named = {"stop": sampling.stop, "logit_bias": sampling.logit_bias}
        names = self._fields.names | {name: name for name, value in named.items() if value}
        names[self._served.limit] = "max_new_tokens"
        if refused := refused_settings(fault, names):
            raise rejected(refused, fault.said)
        if self.command.resume is not None and fault.status in (400, 422) and not self._answer.begun:
            raise cannot_continue(self._served, fault.said)
        return fault

    async def _wait(self, fault: ServerFault) -> None:
        """Wait before the next try.

        Raises:
            ServerFault: if there is none: text that was shown cannot be taken back, or it was tried often enough.
        """
        seconds = FIRST_WAIT * 2**self._tries if fault.wait is None else fault.wait
        if not fault.passing or self._answer.begun or self._tries >= RETRIES or seconds > LONGEST_WAIT:
            raise fault
        self._tries += 1
        self._waits(f"{fault.report.title}; trying again in {seconds:.3g} s ({self._tries} of {RETRIES})")
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waits("")


async def _whole(response: Any) -> bytes:
    """An answer that was not streamed although it was asked for."""
    body = bytearray()
    async for piece in response.iter_bytes():
        body += piece
        if len(body) > LARGEST_BODY:
            raise ValueError(f"an answer of more than {LARGEST_BODY:,} bytes")
    return bytes(body)


def _is_transport(error: Exception) -> bool:
    import httpx2

    return isinstance(error, httpx2.HTTPError | httpx2.StreamError)


def cannot_continue(served: Served, said: str = "") -> GenerationError:
    """Say that a server cannot go on in the middle of an answer."""
    return GenerationError(
        "This server cannot continue an answer",
        said or f"{served.dialect.label} would begin a new one.",
        "Ask it to go on in a new message, or answer again.",
        code="server-cannot",
    )
