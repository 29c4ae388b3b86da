"""Jobs in an engine process of their own, so that the model that chats is untouched."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TypeAlias

from quantchat.domain.backends import OWN
from quantchat.engine.protocol import (
    Calibrated,
    Dequantize,
    EngineExited,
    Event,
    JobFailed,
    JobFinished,
    JobModule,
    JobProgress,
    Log,
    Quantize,
    Ready,
    Stop,
    Survey,
)
from quantchat.errors import Cancelled, EngineGone, JobError, QuantchatError, StorageError
from quantchat.services.engine import Engine, EngineFactory, default_engine

STOP_SECONDS = 4.0
"""What a job gets to put its half-made folder away before its process is killed."""
NICENESS = 10
"""Beside a chat on the same cores a job gets about a tenth of them, without one all."""

Job: TypeAlias = Dequantize | Quantize | Survey
JobEvent: TypeAlias = Ready | JobProgress | JobModule | Calibrated | Log | JobFinished
_KINDS: dict[str, type[QuantchatError]] = {
    "disk-full": StorageError,
    **{kind.code: kind for kind in (StorageError, Cancelled, EngineGone)},
}
_Arrivals: TypeAlias = "asyncio.Queue[Event | EngineExited]"


async def run_job(job: Job, engine_factory: EngineFactory = default_engine) -> AsyncGenerator[JobEvent, None]:
    """Run a job in an engine process of its own, and end the process.

    The last event is `JobFinished`. Closing the generator, and cancelling who waits for it, stop the job.

    Raises:
        EngineGone: if the engine died.
        QuantchatError: what the job failed with.
    """
    events: _Arrivals = asyncio.Queue()
    engine = engine_factory(events.put_nowait)
    await engine.start()
    try:
        engine.send(job)
        while True:
            match event := await events.get():
                case JobFinished():
                    yield event
                    return
                case JobFailed():
                    raise failure(event)
                case EngineExited():
                    raise _gone(event)
                case Ready() | JobProgress() | JobModule() | Calibrated() | Log():
                    yield event
    except (asyncio.CancelledError, GeneratorExit):
        await _stop(engine, job, events)
        raise
    finally:
        await engine.close()


def failure(event: JobFailed) -> QuantchatError:
    """Return the error of a job, of the kind that it had in the engine."""
    return _KINDS.get(event.error.code, JobError).from_report(event.error)


def yielding(engine_factory: EngineFactory) -> EngineFactory:
    """Return a factory of the same engines whose processes yield the processor to chats."""
    return lambda on_event, spec=OWN, /: _Yielding(engine_factory(on_event, spec))


class _Yielding:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.send, self.close, self.kill = engine.send, engine.close, engine.kill

    @property
    def pid(self) -> int | None:
        return self._engine.pid

    @property
    def running(self) -> bool:
        return self._engine.running

    async def start(self) -> None:
        await self._engine.start()
        _make_way(self.pid)


def _make_way(pid: int | None) -> None:
    """A process that has just begun has one thread; those to come are as nice."""
    if pid is None:
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        # Where Linux groups processes by session, only the niceness of the group counts between sessions.
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def _gone(event: EngineExited) -> EngineGone:
    if event.signal == "SIGKILL":
        remedy = "SIGKILL often means that memory ran out: unload other models, or take fewer and shorter samples"
        return EngineGone("The engine was killed in the middle of its work", event.log_tail[-300:], remedy)
    return EngineGone("The engine ended in the middle of its work", event.log_tail[-300:])


async def _stop(engine: Engine, job: Job, events: _Arrivals) -> None:
    """Let the engine put its half-made folder away before it is ended."""
    if not engine.running:
        return
    engine.send(Stop(turn=job.job))
    try:
        async with asyncio.timeout(STOP_SECONDS):
            while not isinstance(await events.get(), JobFinished | JobFailed | EngineExited):
                pass
    except TimeoutError:
        engine.kill()
