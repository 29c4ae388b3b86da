"""Loads a model as soon as there is room for it: somebody else's job ends, and the box is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from quantchat.domain.memory import GIB, format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport
from quantchat.services.facts import EngineChanged, Listener, Notice
from quantchat.services.fit import Forecast, forecast
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView

POLL_SECONDS = 2.0
MOST_GIB = 10_000


def split_amount(text: str) -> tuple[str, int | None]:
    """Split `qwen 20` into a name and 20 GiB in bytes; without an amount what is needed is predicted."""
    name, _, last = text.strip().rpartition(" ")
    number = last.lower().removesuffix("gib").removesuffix("gb").strip()
    try:
        amount = float(number)
    except ValueError:
        return text.strip(), None
    return (name.strip(), int(amount * GIB)) if 0 < amount < MOST_GIB else (text.strip(), None)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """A load that waits for memory.

    Attributes:
        needed: Bytes that must be free; 0 before the first look.
        free: Bytes that are, as far as is known.
        since: When it began, in seconds of the monotonic clock.
    """

    model: ModelInfo
    needed: int = 0
    free: int | None = None
    since: float = 0.0

    def line(self) -> str:
        """Say it in one line."""
        if not self.needed:
            return f"Waiting for room for {self.model.name}"
        there = "" if self.free is None else f", {format_bytes(self.free)} are"
        return f"Waiting until {format_bytes(self.needed)} are free for {self.model.name}{there}"


class LoadWhenFree:
    """One load at most waits.

    Attributes:
        waiting: What waits; None if nothing does.
    """

    def __init__(
        self,
        load: Callable[[ModelInfo], None],
        look: Callable[[], Awaitable[MemoryView]],
        listener: Listener,
        *,
        options: LoadOptions | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._load, self._look, self._listen = load, look, listener
        self._options, self._poll_seconds = options, poll_seconds
        self._task: asyncio.Task[None] | None = None
        self.waiting: Wait | None = None

    def start(self, model: ModelInfo, free_bytes: int | None = None) -> None:
        """Wait for a model in place of whatever waits; needs a running event loop.

        Args:
            model: What to load then.
            free_bytes: Bytes that must be free; None takes what the prediction says.
        """
        self.cancel()
        self.waiting = Wait(model=model, needed=free_bytes or 0, since=time.monotonic())
        self._listen(EngineChanged())
        self._task = asyncio.ensure_future(self._wait(model, free_bytes))

    def cancel(self) -> None:
        """Wait no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self.waiting is not None:
            self._end()

    async def _wait(self, model: ModelInfo, free_bytes: int | None) -> None:
        while True:
            found = forecast(model, await self._look(), self._options)
            if found.problem:
                self._give_up(model, found.problem)
                return
            if self._has_room(found, free_bytes):
                self._end()
                self._load(model)
                return
            await asyncio.sleep(self._poll_seconds)

    def _has_room(self, found: Forecast, free_bytes: int | None) -> bool:
        judged = found.judgement
        if judged is None or self.waiting is None:
            return False
        needed = judged.needed if free_bytes is None else free_bytes
        before, self.waiting = self.waiting, msgspec.structs.replace(self.waiting, needed=needed, free=judged.free)
        if self.waiting != before:
            self._listen(EngineChanged())
        return judged.free >= needed and (free_bytes is not None or judged.fit != "too big")

    def _give_up(self, model: ModelInfo, why: str) -> None:
        self._end()
        self._listen(Notice(report=ErrorReport(code="kernel", title=f"{model.name} cannot be loaded", detail=why)))

    def _end(self) -> None:
        self._task = self.waiting = None
        self._listen(EngineChanged())
