"""A worker in this process that asks servers, and the events that came out of it."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable
from typing import Any

from engine.rig import Rig
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.domain.servers import ServerTarget, server_path
from quantchat.engine import protocol as p
from quantchat.engine.worker import Worker

PLAIN = SamplingSettings(temperature=0, max_new_tokens=24)


class ServerRig(Rig):
    """As `Rig`, with a server's model in place of a folder."""

    def __init__(self) -> None:
        self.events = []
        self._queue = queue.SimpleQueue()
        self._names = itertools.count()
        self._running = set()
        self.worker = Worker(self._queue.put, "server")
        self.worker.start()
        self.ready = self.wait(p.Ready)

    def use(self, url: str, model: str = "tiny", **target: Any) -> p.Loaded | p.LoadFailed:
        """Load a model of a server."""
        info = ModelInfo(
            path=server_path("box", model),
            name=model,
            root=url,
            quant=QuantSpec(method="served"),
            container="server",
            server="box",
        )
        where = ServerTarget(name="box", url=url, model=model, **target)
        self.worker.submit(p.Load(request=self.name(), model=info, server=where))
        return self.wait(p.Loaded, p.LoadFailed)

    def thinking(self, turn: str) -> str:
        return self.said(turn, "thinking")

    def said(self, turn: str, channel: str = "answer") -> str:
        deltas = (event for event in self.events if isinstance(event, p.Delta) and event.turn == turn)
        return "".join(event.text for event in deltas if event.channel == channel)

    def told(self, kind: type) -> list[Any]:
        """All events of a kind that came so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, kind: type, suits: Callable[[Any], bool]) -> Any:
        """Return the next event of a kind that suits."""
        while not suits(event := self.wait(kind)):
            pass
        return event


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
