"""An `EngineClient` over the scripted engine, with a record of what it reported."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.models import ModelInfo
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Event, Failed, Finished, Generate, Load, Loaded, Partial, Ready

SCRIPTED_ENGINE = Path(__file__).resolve().parent / "scripted_engine.py"
PATIENCE = 20.0

E = TypeVar("E", bound=Event | EngineExited)


class ClientRig:
    """Starts one client with a script and waits for what it reports, by condition."""

    def __init__(self, folder: Path, script: dict[str, object]) -> None:
        script_file = folder / "script.json"
        script_file.write_text(json.dumps(script))
        self.log_path = folder / "logs" / "engine.log"
        self.events: list[Event | EngineExited] = []
        self.pids: list[int] = []
        self.spawned = 0
        self._news = asyncio.Event()
        self.client = EngineClient(
            self._record,
            command=[sys.executable, str(SCRIPTED_ENGINE)],
            log_path=self.log_path,
            env={"QUANTCHAT_SCRIPT": str(script_file)},
        )

    def _record(self, event: Event | EngineExited) -> None:
        self.events.append(event)
        self._news.set()

    async def spawn(self) -> None:
        """Start the engine process."""
        await self.client.start()
        self.spawned += 1
        if self.client.pid:
            self.pids.append(self.client.pid)

    async def start(self) -> None:
        """Start the engine and wait until it is ready."""
        since = len(self.events)
        await self.spawn()
        await self.wait_for(Ready, since=since)

    async def load(self, request: str = "load") -> None:
        """Load the one model that the scripted engine knows."""
        self.client.send(Load(request=request, model=ModelInfo(path="/models/tiny", name="tiny")))
        await self.wait_for(Loaded, lambda event: event.request == request)

    def ask(
        self,
        turn: str,
        prompt: str,
        max_new_tokens: int = 100_000,
        *,
        session: str = "chat",
        resume: Partial | None = None,
    ) -> None:
        """Send a prompt."""
        sampling = SamplingSettings(max_new_tokens=max_new_tokens)
        messages = [ChatMessage("user", prompt)]
        self.client.send(Generate(turn=turn, messages=messages, sampling=sampling, session=session, resume=resume))

    def of_turn(self, turn: str) -> list[Event | EngineExited]:
        """Everything that was reported about one turn."""
        return [event for event in self.events if getattr(event, "turn", None) == turn]

    def ends(self, turn: str) -> list[Event | EngineExited]:
        """The last events of a turn; sound engines send exactly one."""
        return [event for event in self.of_turn(turn) if isinstance(event, Finished | Failed)]

    def exits(self) -> list[EngineExited]:
        """The reported ends of engine processes."""
        return [event for event in self.events if isinstance(event, EngineExited)]

    async def wait_for(self, kind: type[E], matches: Callable[[E], bool] = lambda _: True, *, since: int = 0) -> E:
        """Wait for an event of a kind, also one that came after `since` events and before this call."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._news.clear()
                for event in self.events[since:]:
                    if isinstance(event, kind) and matches(event):
                        return event
                await self._news.wait()

    async def finish(self, turn: str) -> Finished | Failed:
        """Wait for the end of a turn."""
        async with asyncio.timeout(PATIENCE):
            while not (ends := self.ends(turn)):
                self._news.clear()
                await self._news.wait()
        end = ends[0]
        assert isinstance(end, Finished | Failed)
        return end
