"""Who speaks: an engine process of a side's own, or the chat's engine where it holds the very model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from quantchat.domain.kernels import short_name
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.errors import EngineGone
from quantchat.services.engine import EngineFactory, EventHandler
from quantchat.services.headless import Headless, require_loadable
from quantchat.services.library import Library, LoadStatus
from quantchat.services.loads import KernelTrials, LoadOptions

OnLoad = Callable[[LoadStatus], None]


class Voice(Protocol):
    """An engine as a side uses it.

    Attributes:
        borrowed: It is the chat's, and stays as it is.
    """

    borrowed: bool

    @property
    def report(self) -> p.LoadReport | None:
        """What the load came to; None while no model is loaded."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the engine's libraries."""

    async def load(self, on_load: OnLoad) -> None:
        """Load the model.

        Raises:
            EngineError: if it does not load.
        """

    async def generate(self, command: p.Generate, on_event: EventHandler) -> p.Finished | p.Failed:
        """Run a turn.

        Raises:
            EngineGone: if the engine died.
        """

    def stop(self, turn: str) -> None:
        """End a turn."""

    async def close(self, *, now: bool = False) -> None:
        """Give back the memory, if it is this side's own."""


class OwnVoice:
    """An engine process that holds one model for a comparison."""

    borrowed = False

    def __init__(
        self,
        model: ModelInfo,
        options: LoadOptions,
        engine_factory: EngineFactory | None = None,
        trials: KernelTrials | None = None,
    ) -> None:
        self.model, self.options = model, options
        self._engine = Headless(options=options, engine_factory=engine_factory, trials=trials)

    @property
    def report(self) -> p.LoadReport | None:
        """What the load came to; None while no model is loaded."""
        return self._engine.report

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the engine's libraries."""
        return self._engine.versions

    async def load(self, on_load: OnLoad) -> None:
        """Start the process and load the model.

        Raises:
            ModelError: if it is known not to load.
            EngineError: if it does not load.
        """
        require_loadable(self.model)
        await self._engine.load(self.model, on_load)

    async def generate(self, command: p.Generate, on_event: EventHandler) -> p.Finished | p.Failed:
        """Run a turn."""
        return await self._engine.generate(command, on_event)

    def stop(self, turn: str) -> None:
        """End a turn."""
        self._engine.stop(turn)

    async def close(self, *, now: bool = False) -> None:
        """End the process; the next load starts another."""
        await self._engine.close(now=now)


class ChatVoice:
    """The chat's engine, for turns that belong to no session; it is neither loaded nor unloaded here."""

    borrowed = True

    def __init__(self, library: Library) -> None:
        self._library = library
        self._turns: dict[str, tuple[EventHandler, asyncio.Future[p.Finished | p.Failed]]] = {}

    @property
    def report(self) -> p.LoadReport | None:
        """What the load came to; None while no model is loaded."""
        return self._library.loaded

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the engine's libraries."""
        return self._library.ready.versions if self._library.ready is not None else {}

    def serves(self, model: ModelInfo, kernel: str | None) -> bool:
        """Whether it holds this model, and with this kernel if one is asked for."""
        report = self.report
        if report is None or report.path != model.path:
            return False
        return kernel in (None, report.kernel, short_name(report.kernel))

    async def load(self, on_load: OnLoad) -> None:
        """Refuse: whoever borrows loads nothing."""
        raise EngineGone("The chat's model was unloaded meanwhile", remedy="Ask again")

    async def generate(self, command: p.Generate, on_event: EventHandler) -> p.Finished | p.Failed:
        """Run a turn beside those of the chat.

        Raises:
            EngineGone: if the model was unloaded meanwhile, or the engine died.
        """
        end: asyncio.Future[p.Finished | p.Failed] = asyncio.get_running_loop().create_future()
        self._turns[command.turn] = on_event, end
        try:
            self._library.send(command)
            return await end
        finally:
            del self._turns[command.turn]

    def stop(self, turn: str) -> None:
        """End a turn."""
        self._library.send(p.Stop(turn=turn))

    async def close(self, *, now: bool = False) -> None:
        """Leave it as it is; turns that still run are stopped."""
        for turn in self._turns:
            self.stop(turn)

    def on_event(self, event: p.Event | p.EngineExited) -> None:
        """Hear what the chat's engine says."""
        match event:
            case p.Prefill() | p.Delta() if event.turn in self._turns:
                self._turns[event.turn][0](event)
            case p.Finished() | p.Failed() if event.turn in self._turns:
                _settle(self._turns[event.turn][1], event)
            case p.EngineExited():
                gone = EngineGone("The chat's engine ended", "Its model was unloaded, or it died", "Ask again")
                for _, end in self._turns.values():
                    if not end.done():
                        end.set_exception(gone)


def _settle(end: asyncio.Future[p.Finished | p.Failed], event: p.Finished | p.Failed) -> None:
    if not end.done():
        end.set_result(event)
