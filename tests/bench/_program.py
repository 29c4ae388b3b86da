"""The program's path without the drawing: client → engine process → a consumer that drains as the screen does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from quantchat.catalog.reader import read_model
from quantchat.domain.backends import OWN, EngineSpec, Interpreters, engine_spec
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import (
    Command,
    CountTokens,
    Delta,
    Event,
    Failed,
    Finished,
    Forget,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    LoadReport,
    RenderedPrompt,
    RenderPrompt,
    RequestFailed,
    TokenCount,
)

DRAINS_PER_SECOND = 20

E = TypeVar("E")
UNKNOWN = TurnStatistics()
FATAL = (Failed, LoadFailed, RequestFailed, EngineExited)


@dataclass(frozen=True)
class Run:
    """One answer; `first` and `seconds` count from the question to the first text and to the last token."""

    text: str
    tokens: int
    first: float
    seconds: float
    statistics: TurnStatistics = UNKNOWN

    @property
    def rate(self) -> float:
        """Tokens per second from the question on."""
        return self.tokens / self.seconds

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.seconds - self.first)


class Program:
    """Asks the engine process and waits for its answers, one after the other."""

    def __init__(self, spec: EngineSpec = OWN) -> None:
        self._arrived: deque[tuple[float, Event | EngineExited]] = deque()
        self._client = EngineClient(lambda event: self._arrived.append((time.perf_counter(), event)), spec=spec)
        self._names = 0

    async def load(self, folder: Path) -> LoadReport:
        await self._client.start()
        self._client.send(Load(request=self._name(), model=read_model(folder)))
        return (await self._wait(Loaded)).report

    async def ask(self, messages: Sequence[ChatMessage], sampling: SamplingSettings, session: str = "") -> Run:
        """Ask and wait for the end; without a session no cache is reused or kept."""
        text: list[str] = []
        first = 0.0
        begun = time.perf_counter()
        self._send(Generate(turn=self._name(), messages=list(messages), sampling=sampling, session=session))
        while True:
            for at, event in await self._drain():
                if isinstance(event, Delta):
                    first = first or at
                    text.append(event.text)
                elif isinstance(event, Finished):
                    tokens = event.statistics.new_tokens
                    return Run("".join(text), tokens, (first or at) - begun, at - begun, event.statistics)

    async def count(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the rendered prompt."""
        self._send(CountTokens(request=self._name(), messages=list(messages)))
        return (await self._wait(TokenCount)).tokens

    async def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt as the model gets it."""
        self._send(RenderPrompt(request=self._name(), messages=list(messages)))
        return (await self._wait(RenderedPrompt)).text

    def forget(self, session: str) -> None:
        self._send(Forget(session=session))

    async def close(self) -> None:
        await self._client.close()

    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _send(self, command: Command) -> None:
        self._client.send(command)

    async def _wait(self, kind: type[E]) -> E:
        while True:
            for _, event in await self._drain():
                if isinstance(event, kind):
                    return event

    async def _drain(self) -> list[tuple[float, Event | EngineExited]]:
        await asyncio.sleep(1 / DRAINS_PER_SECOND)
        arrived = list(self._arrived)
        self._arrived.clear()
        for _, event in arrived:
            if isinstance(event, FATAL):
                raise SystemExit(f"The engine failed: {event}")
        return arrived


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Program, LoadReport]]:
    """A program with a model loaded."""
    program = Program(engine_spec(read_model(folder), Interpreters()))
    try:
        yield program, await program.load(folder)
    finally:
        await program.close()
