"""The models of this machine and the engine process that holds one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from quantchat.domain.chat import new_id
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import EngineError, ErrorReport, QuantchatError
from quantchat.services.background import in_background
from quantchat.services.facts import EngineChanged, Listener, ModelsChanged, Notice

STOP_GRACE = 2.0
"""Seconds that an engine gets to leave by itself."""


class Phase(StrEnum):
    """What the engine is doing about models."""

    OFF = "off"
    EMPTY = "empty"
    LOADING = "loading"
    LOADED = "loaded"


class LoadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A load under way: the step it is in, and since when (monotonic seconds)."""

    model: ModelInfo
    request: str
    since: float
    stage: str = "starting the engine"
    stage_since: float = 0.0
    done: int = 0
    total: int = 0
    unit: str = ""


class Engine(Protocol):
    """The part of `EngineClient` that services use."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""

    @property
    def running(self) -> bool:
        """Whether commands can be sent."""

    async def start(self) -> None:
        """Spawn the process."""

    def send(self, command: protocol.Command) -> None:
        """Send a command."""

    async def close(self, grace: float = 2.0) -> None:
        """End the process."""

    def kill(self) -> None:
        """End the process now."""


EventHandler = Callable[[protocol.Event | EngineExited], None]
EngineFactory = Callable[[EventHandler], Engine]


def _client(on_event: EventHandler) -> Engine:
    # Not at the top: the first frame does not need it.
    from quantchat.engine.client import EngineClient

    return EngineClient(on_event)


class Library:
    """Scans for models, loads and unloads them, and owns the engine process.

    Every load gets a fresh engine process unless the one that runs has never held a model: only the end of a process
    gives back all of its memory, and a kernel that failed to build stays broken in the process that tried it.
    Events of turns are handed to `on_turn_event`.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        models_dirs: Sequence[Path] = (),
        kernel: str | None = None,
        device: str | None = None,
        decoding: protocol.Decoding = "auto",
        engine_factory: EngineFactory | None = None,
    ) -> None:
        self._listen = listener
        self._models_dirs = tuple(models_dirs)
        self._kernel = kernel
        self._device = device
        self._decoding = decoding
        self._engine_factory = engine_factory or _client
        self._engine: Engine | None = None
        self._touched = False
        self._lock = asyncio.Lock()
        self.on_turn_event: EventHandler = lambda _event: None
        self.models: tuple[ModelInfo, ...] = ()
        self.scanning = False
        self.ready: protocol.Ready | None = None
        self.loading: LoadStatus | None = None
        self.loaded: protocol.LoadReport | None = None
        self.model: ModelInfo | None = None
        self.last_model: ModelInfo | None = None

    @property
    def phase(self) -> Phase:
        """Return what the engine is doing about models."""
        if self.loading is not None:
            return Phase.LOADING
        if self.loaded is not None:
            return Phase.LOADED
        return Phase.EMPTY if self._engine is not None and self._engine.running else Phase.OFF

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine while it runs."""
        return self._engine.pid if self._engine is not None and self._engine.running else None

    async def scan(self) -> None:
        """Look for models in all roots, off the event loop."""
        # Not at the top: the first frame does not need it.
        from quantchat.catalog.roots import default_roots
        from quantchat.catalog.scan import scan

        self.scanning = True
        try:
            roots = await in_background(default_roots, self._models_dirs)
            result = await in_background(scan, roots)
        finally:
            self.scanning = False
        self.models = tuple(result.models)
        for problem in result.problems:
            self._listen(Notice(report=problem, severity="warning"))
        self._listen(ModelsChanged())

    async def start_engine(self) -> None:
        """Start the engine process if none runs, so that its imports are done before a model is chosen."""
        async with self._lock:
            await self._ensure_engine()

    async def load(self, model: ModelInfo, *, kernel: str | None = None) -> None:
        """Load a model in place of the one that is there; the outcome comes as facts.

        Raises:
            QuantchatError: if the model is known to be broken, or the engine cannot be started.
        """
        if not model.loadable:
            problem = model.errors[0]
            raise QuantchatError(f"{model.name} cannot be loaded", problem.cause, problem.remedy, code=problem.code)
        # A load cannot be asked to stop, so its process gets no time to.
        grace = 0.0 if self.loading is not None else STOP_GRACE
        self._start_load(model)
        request = self.loading.request if self.loading else ""
        async with self._lock:
            if self._touched:
                await self._end_engine(grace)
            if self.loading is None or self.loading.request != request:
                return
            try:
                await self._ensure_engine()
                self._touched = True
                self._send(
                    protocol.Load(
                        request=request,
                        model=model,
                        device=self._device,
                        kernel=kernel or self._kernel,
                        decoding=self._decoding,
                    )
                )
            except EngineError:
                self._clear_load()
                raise

    def _start_load(self, model: ModelInfo) -> None:
        now = time.monotonic()
        self.loading = LoadStatus(model=model, request=new_id(), since=now, stage_since=now)
        self.loaded = self.model = None
        self.last_model = model
        self._listen(EngineChanged())

    def _clear_load(self) -> None:
        self.loading = None
        self._listen(EngineChanged())

    async def unload(self) -> None:
        """Give back all memory of the loaded model, or break off the load under way."""
        grace = 0.0 if self.loading is not None else STOP_GRACE
        self.loading = self.loaded = self.model = None
        self._listen(EngineChanged())
        async with self._lock:
            if self._touched:
                await self._end_engine(grace)
            await self._ensure_engine()

    async def close(self, grace: float) -> None:
        """End the engine process; it is killed after `grace` seconds, and at once while it loads."""
        loading = self.loading is not None
        self.loading = self.loaded = self.model = None
        if loading:
            self.kill()
        async with self._lock:
            await self._end_engine(grace)

    def kill(self) -> None:
        """End the engine process at once, without waiting."""
        if self._engine is not None:
            self._engine.kill()

    def send(self, command: protocol.Command) -> None:
        """Send a command about a turn.

        Raises:
            EngineGone: if no engine runs.
        """
        self._send(command)

    def _send(self, command: protocol.Command) -> None:
        if self._engine is None:
            raise EngineError("The engine is not running", remedy="Load a model to start it", code="engine-gone")
        self._engine.send(command)

    async def _ensure_engine(self) -> None:
        if self._engine is not None and self._engine.running:
            return
        engine = self._engine_factory(lambda event: self._on_event(engine, event))
        self._engine = engine
        self._touched = False
        self.ready = None
        await engine.start()
        self._listen(EngineChanged())

    async def _end_engine(self, grace: float) -> None:
        engine, self._engine = self._engine, None
        self._touched = False
        self.ready = None
        if engine is not None:
            await engine.close(grace)

    def _on_event(self, engine: Engine, event: protocol.Event | EngineExited) -> None:
        if engine is not self._engine:
            # An engine that was replaced may still end its turn; of loads it has nothing to say.
            if isinstance(event, protocol.Delta | protocol.Finished | protocol.Failed | EngineExited):
                self.on_turn_event(event)
            return
        match event:
            case protocol.Ready():
                self.ready = event
                self._listen(EngineChanged())
            case protocol.LoadProgress():
                self._on_progress(event)
            case protocol.Loaded():
                self._on_loaded(event)
            case protocol.LoadFailed():
                self._on_load_failed(event)
            case EngineExited():
                self._on_exit(event)
            case protocol.Log(level="error" | "warning"):
                self._listen(Notice(report=ErrorReport(code="engine-log", title=event.text), severity="warning"))
            case _:
                self.on_turn_event(event)

    def _current(self, request: str) -> LoadStatus | None:
        return self.loading if self.loading is not None and self.loading.request == request else None

    def _on_progress(self, event: protocol.LoadProgress) -> None:
        status = self._current(event.request)
        if status is None:
            return
        since = status.stage_since if event.stage == status.stage else time.monotonic()
        self.loading = msgspec.structs.replace(
            status, stage=event.stage, stage_since=since, done=event.done, total=event.total, unit=event.unit
        )
        self._listen(EngineChanged())

    def _on_loaded(self, event: protocol.Loaded) -> None:
        status = self._current(event.request)
        if status is None:
            return
        self.loading, self.loaded, self.model = None, event.report, status.model
        self._listen(EngineChanged())
        self.on_turn_event(event)
        for warning in event.report.warnings:
            self._listen(Notice(report=ErrorReport(code="load-warning", title=warning), severity="warning"))

    def _on_load_failed(self, event: protocol.LoadFailed) -> None:
        status = self._current(event.request)
        if status is None:
            return
        if event.next_kernel is not None:
            note = f"{event.error.title}. Trying {event.next_kernel}."
            self._listen(Notice(report=ErrorReport(code="kernel", title=note), severity="warning"))
            self._retry = asyncio.ensure_future(self._load_again(status.model, event.next_kernel))
            return
        self._clear_load()
        self._listen(Notice(report=event.error, dialog=True))
        self.on_turn_event(event)

    async def _load_again(self, model: ModelInfo, kernel: str) -> None:
        try:
            await self.load(model, kernel=kernel)
        except QuantchatError as error:
            self._listen(Notice(report=error.report, dialog=True))
            self.on_turn_event(protocol.LoadFailed(request="", error=error.report))

    def _on_exit(self, event: EngineExited) -> None:
        self._engine = None
        was_loading, self.loading, self.loaded, self.model = self.loading, None, None, None
        self._listen(EngineChanged())
        self.on_turn_event(event)
        if was_loading is not None or not event.expected:
            self._listen(Notice(report=exit_report(event), dialog=was_loading is not None))


def exit_report(event: EngineExited) -> ErrorReport:
    """Explain the death of the engine process to the user, with the end of its log."""
    how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
    killed = event.signal == "SIGKILL"
    remedy = "It is started again when you send the next prompt."
    if killed:
        remedy = "SIGKILL often means that memory ran out: try a smaller model. " + remedy
    tail = f"\n\nThe end of its log:\n{event.log_tail}" if event.log_tail else ""
    return ErrorReport(
        code="engine-gone", title=f"The engine stopped ({how})", detail="Your chat is untouched" + tail, remedy=remedy
    )
