"""A worker in this process, and the events that came out of it."""

from __future__ import annotations

import itertools
import queue
from pathlib import Path
from typing import TypeVar

from quantchat.catalog.reader import read_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import protocol as p
from quantchat.engine.worker import Worker

E = TypeVar("E")
PATIENCE = 240.0
GREEDY = SamplingSettings(temperature=0, max_new_tokens=24)
ENDS = (p.Finished, p.Failed)


def asking(text: str = "What is counted tomorrow?") -> list[ChatMessage]:
    return [ChatMessage("user", text)]


class Rig:
    """Submits commands and waits for events; keeps all of them."""

    def __init__(self, backend: p.Backend = "torch") -> None:
        self.events: list[p.Event] = []
        self._queue: queue.SimpleQueue[p.Event] = queue.SimpleQueue()
        self._names = itertools.count()
        self._running: set[str] = set()
        self.worker = Worker(self._queue.put, backend)
        self.worker.start()
        self.ready = self.wait(p.Ready)

    def wait(self, *kinds: type[E]) -> E:
        """Return the next event of these kinds."""
        while True:
            event = self._queue.get(timeout=PATIENCE)
            self.events.append(event)
            if isinstance(event, ENDS):
                self._running.discard(event.turn)
            if isinstance(event, kinds):
                return event

    def settle(self) -> None:
        """Wait until everything submitted is done."""
        name = self.name()
        self.worker.submit(p.CountTokens(request=name, messages=asking()))
        while self.wait(p.TokenCount, p.RequestFailed).request != name:
            pass
        while self._running:
            self.wait(*ENDS)

    def name(self) -> str:
        return f"n{next(self._names)}"

    def load(self, path: Path, **options) -> p.Loaded | p.LoadFailed:
        self.worker.submit(p.Load(request=self.name(), model=read_model(path), **options))
        return self.wait(p.Loaded, p.LoadFailed)

    def start(self, messages=None, sampling=GREEDY, **more) -> str:
        turn = self.name()
        self._running.add(turn)
        self.worker.submit(p.Generate(turn=turn, messages=messages or asking(), sampling=sampling, **more))
        return turn

    def answer(self, messages=None, sampling=GREEDY, **more) -> tuple[str, p.Finished | p.Failed]:
        turn = self.start(messages, sampling, **more)
        end = self.wait(*ENDS)
        assert end.turn == turn
        return self.text(turn), end

    def text(self, turn: str) -> str:
        return "".join(event.text for event in self.events if isinstance(event, p.Delta) and event.turn == turn)

    def ends(self, turn: str) -> list[p.Finished | p.Failed]:
        return [event for event in self.events if isinstance(event, ENDS) and event.turn == turn]
