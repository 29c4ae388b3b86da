"""Loads a model as soon as there is room for it: somebody else's job ends, and the box is free."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from quantchat.domain.memory import GIB, format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport
from quantchat.services.facts import EngineChanged, Listener, Notice
from quantchat.services.fit import Forecast, forecast
from quantchat.services.memory import MemoryView

POLL_SECONDS = 2.0
MOST_GIB = 10_000
_AMOUNT = re.compile(r"(?:^|\s)(\d{1,9}(?:[.,]\d{1,9})?)\s*(?:g|gb|gib)?$", re.IGNORECASE)


def split_amount(text: str) -> tuple[str, int | None]:
    """Split `qwen 20` or `qwen 20 GiB` into a name and bytes; without an amount what is needed is predicted."""
    text = text.strip()
    found = _AMOUNT.search(text)
    amount = float(found[1].replace(",", ".")) if found else 0.0
    if found is None or not 0 < amount < MOST_GIB:
        return text, None
    return text[: found.start()].strip(), int(amount * GIB)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """A load that waits for memory.

    Attributes:
        needed: Bytes that must be free; 0 before the first look.
        free: Bytes that are, as far as is known.
        answering: There is room, and an answer is to be ended first.
        since: When it began, in seconds of the monotonic clock.
    """

    model: ModelInfo
    needed: int = 0
    free: int | None = None
    answering: bool = False
    since: float = 0.0

    def line(self) -> str:
        """Say it in one line."""
        if self.answering:
            return f"There is room for {self.model.name}: it loads after this answer"
        if not self.needed:
            return f"Waiting for room for {self.model.name}"
        there = "" if self.free is None else f", {format_bytes(self.free)} are"
        return f"Waiting until {format_bytes(self.needed)} are free for {self.model.name}{there}"


class LoadWhenFree:
    """One load at most waits.

    Args:
        load: Loads a model in place of the one that is there.
        look: Looks at the memory.
        listener: Is told what changed.
        busy: Whether a load would break off an answer.
        poll_seconds: Between two looks.

    Attributes:
        waiting: What waits; None if nothing does.
    """

    def __init__(
        self,
        load: Callable[[ModelInfo], None],
        look: Callable[[], Awaitable[MemoryView]],
        listener: Listener,
        *,
        busy: Callable[[], bool] = lambda: False,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._load, self._look, self._listen = load, look, listener
        self._busy, self._poll_seconds = busy, poll_seconds
        self._task: asyncio.Task[None] | None = None
        self.waiting: Wait | None = None

    def start(self, model: ModelInfo, free_bytes: int | None = None) -> None:
        """Wait for a model in place of whatever waits; needs a running event loop.

        Args:
            model: What to load then.
            free_bytes: Bytes that must be free; None takes what the prediction says.
        """
        self.cancel()
        if not model.loadable:
            self._say_no(model, " ".join(f"{problem.cause} {problem.remedy}" for problem in model.errors[:1]))
            return
        if model.container == "server":
            # It needs no memory of this machine.
            self._load(model)
            return
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
            found = forecast(model, await self._look())
            if hopeless := found.problem or self._never(found, free_bytes):
                self._end()
                self._say_no(model, hopeless)
                return
            if self._has_room(found, free_bytes):
                self._end()
                self._load(model)
                return
            await asyncio.sleep(self._poll_seconds)

    def _never(self, found: Forecast, free_bytes: int | None) -> str:
        """Say that all memory of the devices would not do; empty if it might."""
        totals = [device.total for device in found.devices]
        judged = found.judgement
        if judged is None:
            return "The driver does not tell how much memory is free, so there is nothing to wait for."
        needed, there = free_bytes or judged.needed, sum(total or 0 for total in totals)
        if None in totals or needed <= there:
            return ""
        where = ", ".join(device.device for device in found.devices)
        return f"{format_bytes(needed)} are never free: {where} has {format_bytes(there)} in all."

    def _has_room(self, found: Forecast, free_bytes: int | None) -> bool:
        judged = found.judgement
        if judged is None or self.waiting is None:
            return False
        needed = judged.needed if free_bytes is None else free_bytes
        room = judged.free >= needed and (free_bytes is not None or judged.fit != "too big")
        answering = room and self._busy()
        before = self.waiting
        self.waiting = msgspec.structs.replace(before, needed=needed, free=judged.free, answering=answering)
        if self.waiting != before:
            self._listen(EngineChanged())
        return room and not answering

    def _say_no(self, model: ModelInfo, why: str) -> None:
        self._listen(Notice(report=ErrorReport(code="kernel", title=f"{model.name} cannot be loaded", detail=why)))

    def _end(self) -> None:
        self._task = self.waiting = None
        self._listen(EngineChanged())
