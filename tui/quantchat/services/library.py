"""The models of this machine and the engine process that holds one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from quantchat.domain.backends import OWN, EngineSpec, engine_spec
from quantchat.domain.chat import new_id
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import EngineError, ErrorReport, QuantchatError
from quantchat.services.engine import Engine, EventHandler, default_engine
from quantchat.services.engine import EngineFactory as EngineFactory
from quantchat.services.engine import exit_report as exit_report
from quantchat.services.facts import EngineChanged, Listener, Notice, ServersChanged
from quantchat.services.loads import KernelTrials, LoadOptions, blame
from quantchat.services.loads import LoadStatus as LoadStatus
from quantchat.services.scanning import Scanner
from quantchat.services.servers import server_target

BUILD_CODE = "kernel-build"
STOP_GRACE = 2.0
"""Seconds that an engine gets to leave by itself."""


class Phase(StrEnum):
    """What the engine is doing about models."""

    OFF = "off"
    EMPTY = "empty"
    LOADING = "loading"
    LOADED = "loaded"


class Library:
    """Scans for models, loads and unloads them, and owns the engine process.

    Every load gets a fresh engine process unless the one that runs has never held a model: only the end of a process
    gives back all of its memory, and a kernel that failed to build stays broken in the process that tried it. Two
    models are never held at once: the old process is gone before the new one gets its load.
    Events of turns are handed to `on_turn_event`, what a load came to also to `on_loaded`.

    Attributes:
        loading: The load under way.
        last_model: What was asked for last, loaded or not.
        note: What to show while no model is loaded, such as that it was idle.
        server_state: How the server of the loaded model is, if it is one's.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        models_dirs: Sequence[Path] = (),
        options: LoadOptions | None = None,
        engine_factory: EngineFactory | None = None,
        trials: KernelTrials | None = None,
    ) -> None:
        self._listen = listener
        self.scanner = Scanner(listener, models_dirs)
        self._options = options or LoadOptions()
        self._trials = trials or KernelTrials()
        self._engine_factory = engine_factory or default_engine
        self._engine: Engine | None = None
        self._spec = OWN
        self._touched = False
        self._lock = asyncio.Lock()
        self.on_turn_event: EventHandler = lambda _event: None
        self.on_loaded: Callable[[ModelInfo, protocol.LoadReport], None] = lambda _model, _report: None
        self.ready: protocol.Ready | None = None
        self.loading: LoadStatus | None = None
        self.loaded: protocol.LoadReport | None = None
        self.model: ModelInfo | None = None
        self.last_model: ModelInfo | None = None
        self.note = ""
        self.server_state: protocol.ServerState | None = None
        self._had: tuple[ModelInfo, ...] = ()

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

    @property
    def options(self) -> LoadOptions:
        """What the user wants of every load."""
        return self._options

    @property
    def trials(self) -> KernelTrials:
        """What is known of kernels, for an engine beside this one."""
        return self._trials.beside()

    def failed_kernels(self, model: ModelInfo) -> tuple[protocol.KernelRefusal, ...]:
        """Kernels that failed since the program was started and are not tried for a model again."""
        return self._trials.failed(model)

    @property
    def previous(self) -> ModelInfo | None:
        """The model to go back to: the one that was loaded before what was asked for last."""
        asked = self.last_model.path if self.last_model else None
        return next((model for model in reversed(self._had) if model.path != asked), None)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Return the models of this machine, as far as they were found."""
        return self.scanner.models

    async def scan(self) -> None:
        """Look for models in all roots, off the event loop."""
        await self.scanner.scan()

    async def start_engine(self, spec: EngineSpec = OWN) -> None:
        """Start an engine process if none runs, so that its imports are done before a model is chosen."""
        async with self._lock:
            await self._ensure_engine(spec)

    async def load(self, model: ModelInfo) -> None:
        """Load a model in place of the one that is there; the outcome comes as facts.

        Raises:
            QuantchatError: if the model is known to be broken, or the engine cannot be started.
        """
        if not model.loadable:
            problem = model.errors[0]
            raise QuantchatError(f"{model.name} cannot be loaded", problem.cause, problem.remedy, code=problem.code)
        self._trials.begin()
        await self._load(model, None)

    async def _load(self, model: ModelInfo, kernel: str | None) -> None:
        target = server_target(model, self._options.servers)
        # A load cannot be asked to stop, so its process gets no time to.
        grace = 0.0 if self.loading is not None else STOP_GRACE
        status = self._start_load(model)
        async with self._lock:
            spec = engine_spec(model, self._options.interpreters)
            if self._touched or spec != self._spec:
                await self._end_engine(grace)
                self._enter(status.request, "starting the engine")
            if self._current(status.request) is None:
                return
            try:
                await self._ensure_engine(spec)
                # One that ends as soon as it is started says why by its end, which ends the load.
                if self._current(status.request) is not None and self._engine is not None and self._engine.running:
                    self._touched = True
                    self._send(self._trials.command(status.request, model, self._options, kernel, target))
            except QuantchatError:
                self._clear_load()
                raise

    def _start_load(self, model: ModelInfo) -> LoadStatus:
        now = time.monotonic()
        old, before = self.model, self.loading
        again = before is not None and before.model.path == model.path
        status = LoadStatus(
            model=model, request=new_id(), since=before.since if before and again else now, stage_since=now
        )
        if old is not None:
            status = msgspec.structs.replace(status, stage=f"unloading {old.name}")
        self.loading = status
        self.loaded = self.model = None
        self.last_model = model
        self.note = ""
        self._listen(EngineChanged())
        return status

    def _enter(self, request: str, stage: str) -> None:
        status = self._current(request)
        if status is not None:
            self.loading = msgspec.structs.replace(status, stage=stage, stage_since=time.monotonic())
            self._listen(EngineChanged())

    def _clear_load(self) -> None:
        self.loading = None
        self._listen(EngineChanged())

    async def unload(self, note: str = "") -> None:
        """Give back all memory of the loaded model, or break off the load under way; `note` is shown afterwards."""
        grace = 0.0 if self.loading is not None else STOP_GRACE
        held = self.loading.model if self.loading is not None else self.model
        self.loading = self.loaded = self.model = None
        self.note = f"Unloading {held.name} …" if held is not None else ""
        self._listen(EngineChanged())
        async with self._lock:
            if self._touched:
                await self._end_engine(grace)
            if self.loading is None:
                self.note = note
                self._listen(EngineChanged())
            await self._ensure_engine(self._spec)

    async def close(self, grace: float) -> None:
        """End the engine process; it is killed after `grace` seconds, and at once while it loads."""
        loading = self.loading is not None
        self.scanner.cancel()
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

    async def _ensure_engine(self, spec: EngineSpec = OWN) -> None:
        if self._engine is not None and self._engine.running:
            return
        engine = self._engine_factory(lambda event: self._on_event(engine, event), spec)
        self._engine, self._spec = engine, spec
        self._touched = False
        self.ready = None
        await engine.start()
        self._listen(EngineChanged())

    async def _end_engine(self, grace: float) -> None:
        engine, self._engine = self._engine, None
        self._touched = False
        self.ready = self.server_state = None
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
            case protocol.ServerState():
                self.server_state = event
                self._listen(ServersChanged())
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
            status,
            stage=event.stage,
            stage_since=since,
            done=event.done,
            total=event.total,
            unit=event.unit,
            kernel=event.kernel,
            note=event.note,
        )
        self._listen(EngineChanged())

    def _on_loaded(self, event: protocol.Loaded) -> None:
        status = self._current(event.request)
        if status is None:
            return
        self.loading, self.loaded, self.model = None, event.report, status.model
        self._had = (*(model for model in self._had if model.path != status.model.path), status.model)[-2:]
        self._trials.loaded(status.model)
        self.on_loaded(status.model, event.report)
        self._listen(EngineChanged())
        self.on_turn_event(event)
        for warning in event.report.warnings:
            self._listen(Notice(report=ErrorReport(code="load-warning", title=warning), severity="warning"))

    def _on_load_failed(self, event: protocol.LoadFailed) -> None:
        status = self._current(event.request)
        if status is None:
            return
        following = event.next_kernel
        new = event.failed is None or self._trials.note(event.failed, build=event.error.code == BUILD_CODE)
        if following is not None and new and self._trials.may_ask(following):
            self._try_again(status, following, f"{event.error.title}. Trying {following}.")
            return
        self._clear_load()
        report = self._with_way_back(event.error)
        self._listen(Notice(report=report, dialog=True))
        self.on_turn_event(event)

    def _with_way_back(self, report: ErrorReport) -> ErrorReport:
        """Add to a failed load how to get the model back that it took the place of."""
        if self.previous is None:
            return report
        way = f"/previous loads {self.previous.name} again."
        return msgspec.structs.replace(report, remedy=f"{report.remedy} {way}".strip())

    def _try_again(self, failed: LoadStatus, kernel: str | None, note: str) -> None:
        self._listen(Notice(report=ErrorReport(code="kernel", title=note), severity="warning"))
        self._retry = asyncio.ensure_future(self._load_again(failed, kernel))

    async def _load_again(self, failed: LoadStatus, kernel: str | None) -> None:
        # Who broke the load off meanwhile, or chose another model, wants this one no more.
        if self._current(failed.request) is None:
            return
        try:
            await self._load(failed.model, kernel)
        except QuantchatError as error:
            self._listen(Notice(report=error.report, dialog=True))
            self.on_turn_event(protocol.LoadFailed(request="", error=error.report))

    def _on_exit(self, event: EngineExited) -> None:
        self._engine = self.server_state = None
        was_loading = self.loading
        refusal = blame(was_loading, event) if was_loading is not None else None
        if was_loading is not None and refusal is not None and self._trials.note(refusal):
            # Still loading, for all who wait; which kernel is next, only an engine knows.
            self._try_again(was_loading, None, f"{refusal.kernel}: {refusal.reason}. Trying the next kernel.")
            return
        self.loading = self.loaded = self.model = None
        self._listen(EngineChanged())
        self.on_turn_event(event)
        report = self.explained(event)
        if was_loading is not None:
            self._listen(Notice(report=self._with_way_back(report), dialog=True))
        elif not event.expected:
            self._listen(Notice(report=report))

    def explained(self, event: EngineExited) -> ErrorReport:
        """Explain the end of the last engine: another interpreter is blamed for one that was never ready."""
        return exit_report(event, self._spec.python if self.ready is None else "")
