"""An engine process of the GPU suite, what it reported, and what it holds on the card."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineClient

PATIENCE = 240.0
SLACK = 16 * 2**20
"""What a driver may keep of its own after a process has gone."""

E = TypeVar("E")


class EngineProcess:
    """Starts an engine and waits for what it reports. Use it with `async with`."""

    def __init__(self, folder, env: dict[str, str] | None = None, *, backend: p.Backend = "torch") -> None:
        self.events: list[object] = []
        self._news = asyncio.Event()
        log = str(folder / "engine.log")
        command = [sys.executable, "-P", "-m", "quantchat.engine", "--backend", backend, "--log", log]
        self.client = EngineClient(self._record, command=command, log_path=folder / "engine.log", env=env or {})
        self.group = 0

    def _record(self, event: object) -> None:
        self.events.append(event)
        self._news.set()

    async def __aenter__(self) -> EngineProcess:
        await self.client.start()
        self.group = self.client.pid or 0
        await self.wait(p.Ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def wait(self, *kinds: type[E], matches: Callable[[E], bool] = lambda _: True) -> E:
        async with asyncio.timeout(PATIENCE):
            while True:
                self._news.clear()
                for event in self.events:
                    if isinstance(event, kinds) and matches(event):
                        return event
                    assert not isinstance(event, p.EngineExited), event
                await self._news.wait()

    async def load(self, info, device: str, **options) -> p.Loaded | p.LoadFailed:
        self.client.send(p.Load(request="load", model=info, device=device, **options))
        return await self.wait(p.Loaded, p.LoadFailed)

    def ask(self, turn: str, text: str, max_new_tokens: int) -> None:
        sampling = SamplingSettings(temperature=0, max_new_tokens=max_new_tokens)
        messages = [ChatMessage("user", text)]
        self.client.send(p.Generate(turn=turn, session=turn, messages=messages, sampling=sampling))

    async def answer(self, turn: str, text: str, max_new_tokens: int = 8) -> p.Finished | p.Failed:
        self.ask(turn, text, max_new_tokens)
        return await self.wait(p.Finished, p.Failed, matches=lambda event: event.turn == turn)

    @property
    def gone(self) -> bool:
        """Whether no process of the engine's group is left."""
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return True
        return False


def used_bytes(device: str) -> int:
    """Memory in use on a card by anyone, as the driver says; 0 on the CPU."""
    if not device.startswith("cuda"):
        return 0
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition that no event tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the driver sends no events
            await asyncio.sleep(0.05)
