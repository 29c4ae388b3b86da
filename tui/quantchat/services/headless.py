"""An engine asked by a command instead of a screen: load, ask, measure, leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import msgspec

from quantchat.domain.chat import ChatMessage, new_id
from quantchat.domain.generation import FinishReason, SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.errors import EngineGone, ErrorReport, GenerationError, JobError, LoadError, ModelError, QuantchatError
from quantchat.services.engine import EventHandler
from quantchat.services.facts import EngineChanged, Fact, Notice
from quantchat.services.jobs import failure
from quantchat.services.library import EngineFactory, Library, LoadStatus
from quantchat.services.loads import KernelTrials, LoadOptions

GRACE = 0.5
"""Seconds that the engine gets to leave by itself; nobody waits for anything it could still say."""

E = TypeVar("E", bound=p.Event)
OnLoad = Callable[[LoadStatus], None]
OnJob = Callable[[p.JobProgress], None]
OnNote = Callable[[ErrorReport], None]


def require_loadable(model: ModelInfo) -> None:
    """Refuse a model that is known not to load.

    Raises:
        ModelError: with the first of its problems.
    """
    title = f"{model.name} cannot be loaded"
    if model.errors:
        problem = model.errors[0]
        raise ModelError(title, problem.cause, problem.remedy, code=problem.code)
    if not model.loadable:
        raise ModelError(title, model.verdict.reason, model.verdict.install)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer; `seconds` from the question to its end by the clock of this side."""

    text: str
    reason: FinishReason
    statistics: TurnStatistics
    seconds: float


class Headless:
    """One engine process, for one coroutine or several at once; ends with the `async with` block.

    Attributes:
        notes: Warnings that came while it worked.
        on_note: Hears of each when it comes.
        device_peak: Most device memory that the engine said it held, bytes.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        kernel: str | None = None,
        decoding: p.Decoding = "auto",
        options: LoadOptions | None = None,
        engine_factory: EngineFactory | None = None,
        trials: KernelTrials | None = None,
    ) -> None:
        wanted = options or LoadOptions(device=device, kernel=kernel, decoding=decoding)
        self._library = Library(self._hear, options=wanted, engine_factory=engine_factory, trials=trials)
        self._library.on_turn_event = self._receive
        self._waiting: dict[str, asyncio.Future[p.Event]] = {}
        self._text: dict[str, list[str]] = {}
        self._followed: dict[str, EventHandler] = {}
        self._on_load: OnLoad = lambda _status: None
        self._on_job: OnJob = lambda _progress: None
        self.notes: list[str] = []
        self.on_note: OnNote = lambda _report: None
        self.device_peak = 0

    async def __aenter__(self) -> Headless:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(now=kind is not None)

    async def close(self, *, now: bool = False) -> None:
        """End the engine process; `now` leaves it no time to go by itself. The next load starts another."""
        if now:
            self._library.kill()
        await self._library.close(GRACE)

    @property
    def pid(self) -> int | None:
        """Process id of the engine while it runs."""
        return self._library.engine_pid

    @property
    def report(self) -> p.LoadReport | None:
        """What the load came to, while a model is loaded."""
        return self._library.loaded

    @property
    def versions(self) -> dict[str, str]:
        """Libraries of the engine; empty until it is ready."""
        return self._library.ready.versions if self._library.ready else {}

    async def load(self, model: ModelInfo, on_load: OnLoad) -> p.LoadReport:
        """Load a model, with the next kernel where one fails.

        Raises:
            LoadError: if it does not load.
            EngineGone: if the engine died.
        """
        self._on_load = on_load
        loaded = self._expect("load")
        await self._library.load(model)
        event = await loaded
        if isinstance(event, p.LoadFailed):
            raise LoadError.from_report(event.error)
        assert isinstance(event, p.Loaded)
        return event.report

    async def ask(self, messages: Sequence[ChatMessage], sampling: SamplingSettings, session: str = "") -> Answer:
        """Ask and wait for the whole answer.

        Raises:
            GenerationError: if the turn failed.
            EngineGone: if the engine died.
        """
        turn = new_id()
        begun = time.perf_counter()
        command = p.Generate(turn=turn, messages=list(messages), sampling=sampling, session=session)
        event = await self._request(turn, command)
        seconds = time.perf_counter() - begun
        text = "".join(self._text.pop(turn, ()))
        if isinstance(event, p.Failed):
            raise GenerationError.from_report(event.error)
        assert isinstance(event, p.Finished)
        return Answer(text=text, reason=event.reason, statistics=event.statistics, seconds=seconds)

    async def generate(self, command: p.Generate, on_event: EventHandler) -> p.Finished | p.Failed:
        """Run a turn; `on_event` hears of its prompt and its text as they come.

        Raises:
            EngineGone: if the engine died.
        """
        self._followed[command.turn] = on_event
        try:
            event = await self._request(command.turn, command)
        finally:
            del self._followed[command.turn]
            self._text.pop(command.turn, None)
        assert isinstance(event, p.Finished | p.Failed)
        return event

    def stop(self, turn: str) -> None:
        """End a turn; the text so far stands."""
        self._library.send(p.Stop(turn=turn))

    async def count(self, messages: Sequence[ChatMessage]) -> int:
        """Return the tokens of a prompt.

        Raises:
            GenerationError: if the template refuses it.
        """
        request = new_id()
        event = await self._request(request, p.CountTokens(request=request, messages=list(messages)))
        if isinstance(event, p.RequestFailed):
            raise GenerationError.from_report(event.error)
        assert isinstance(event, p.TokenCount)
        return event.tokens

    async def render(self, messages: Sequence[ChatMessage], template: str = "") -> p.RenderedPrompt:
        """Return the exact prompt that messages become.

        Raises:
            GenerationError: if the template refuses them, or the engine cannot tell.
        """
        request = new_id()
        command = p.RenderPrompt(request=request, messages=list(messages), template=template)
        event = await self._request(request, command)
        if isinstance(event, p.RequestFailed):
            raise GenerationError.from_report(event.error)
        assert isinstance(event, p.RenderedPrompt)
        return event

    async def measure_bandwidth(self) -> dict[str, float]:
        """Return the engine's figures about its memory.

        Raises:
            JobError: if they cannot be taken.
        """
        job = new_id()
        event = await self._request(job, p.MeasureBandwidth(job=job))
        if isinstance(event, p.JobFailed):
            raise JobError.from_report(event.error)
        assert isinstance(event, p.JobFinished)
        return event.figures

    async def evaluate(self, command: p.Evaluate, on_progress: OnJob) -> dict[str, float]:
        """Measure the loaded model; returns the figures that `Evaluate` names.

        Raises:
            JobError: if it cannot be measured.
            StorageError: if the disk refuses what it has to keep.
            EngineGone: if the engine died.
        """
        self._on_job = on_progress
        event = await self._request(command.job, command)
        if isinstance(event, p.JobFailed):
            raise failure(event)
        assert isinstance(event, p.JobFinished)
        return event.figures

    def forget(self, session: str) -> None:
        """Drop the KV cache of a session."""
        self._library.send(p.Forget(session=session))

    def _request(self, name: str, command: p.Command) -> asyncio.Future[p.Event]:
        answer = self._expect(name)
        self._library.send(command)
        return answer

    def _expect(self, name: str) -> asyncio.Future[p.Event]:
        future = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    def _settle(self, name: str, event: p.Event) -> None:
        future = self._waiting.pop(name, None)
        if future is not None and not future.done():
            future.set_result(event)

    def _receive(self, event: p.Event | p.EngineExited) -> None:
        if isinstance(event, p.Prefill | p.Delta) and event.turn in self._followed:
            self._followed[event.turn](event)
        match event:
            case p.Delta(channel="answer"):
                self._text.setdefault(event.turn, []).append(event.text)
            case p.Memory():
                self.device_peak = max(self.device_peak, event.device)
            case p.Loaded() | p.LoadFailed():
                self._settle("load", event)
            case p.Finished() | p.Failed():
                self._settle(event.turn, event)
            case p.TokenCount() | p.RenderedPrompt() | p.RequestFailed():
                self._settle(event.request, event)
            case p.JobProgress():
                self._on_job(event)
            case p.JobFinished() | p.JobFailed():
                self._settle(event.job, event)
            case p.EngineExited() if self._library.loading is None and not event.expected:
                self._fail(event)

    def _fail(self, event: p.EngineExited) -> None:
        how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
        report = self._library.explained(event)
        error: QuantchatError = EngineGone(f"The engine stopped ({how})", event.log_tail[-1000:])
        if report.code == "interpreter":
            error = EngineGone.from_report(report)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    def _hear(self, fact: Fact) -> None:
        if isinstance(fact, EngineChanged) and self._library.loading is not None:
            self._on_load(self._library.loading)
        elif isinstance(fact, Notice) and not fact.dialog:
            self.notes.append(fact.report.sentence())
            self.on_note(fact.report)
