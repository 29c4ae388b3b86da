"""The rig of the engine tests over an engine process in another interpreter."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from pathlib import Path

from engine.rig import Rig
from quantchat.domain.backends import EngineSpec
from quantchat.engine import protocol as p
from quantchat.engine.client import EngineClient


class RemoteWorker:
    """What the rig asks of a worker, asked of a process."""

    def __init__(self, python: str, log: Path, events: queue.SimpleQueue[p.Event]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = EngineClient(events.put, spec=EngineSpec(backend="retired", python=python), log_path=log)
        self._do(self._client.start())

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def submit(self, command: p.Command) -> None:
        async def send() -> None:
            self._client.send(command)

        self._do(send())

    def close(self, timeout: float = 5.0) -> bool:
        self._do(self._client.close(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        self._loop.close()
        return self._client.pid is None


class RemoteRig(Rig):
    """Starts an engine of kind `retired` and waits for its libraries."""

    def __init__(self, python: str, log: Path) -> None:
        self.events = []
        self._queue = queue.SimpleQueue()
        self._names = itertools.count()
        self._running = set()
        self.worker = RemoteWorker(python, log, self._queue)
        self.ready = self.wait(p.Ready, p.EngineExited)
