"""`quantchat bench`: what a model does on this machine, measured through the engine process as a chat would use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

import msgspec

from quantchat.domain.bench import BenchRun, Figure
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.domain.models import ModelInfo
from quantchat.domain.servers import PREFIX
from quantchat.engine.protocol import Decoding, LoadReport
from quantchat.hardware.gpu import GpuMonitor, GpuSnapshot
from quantchat.hardware.host import peak_process_bytes
from quantchat.services.background import in_background
from quantchat.services.headless import Answer, Headless, require_loadable
from quantchat.services.library import EngineFactory, LoadStatus
from quantchat.services.loads import LoadOptions
from quantchat.services.prompts import Prompts, ask
from quantchat.store.settings import load_settings

ROOM = 1.15
"""Prompts come out this much longer than wanted at most."""
FOLLOW_UP = "And what happened then?"
FOLLOW_UPS = 96
"""Tokens that two of these take at most, with their templates."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. All lengths are in tokens; those that the context window cannot hold are shortened.

    Attributes:
        prefill: Lengths of prompts.
        short: Length of the prompt before decoding with a short context, `long` with a long one.
        reply: Tokens decoded per answer.
        history: Length of the history in front of which the time to first token is taken.
        rounds: How often each is measured; medians count.
        together: Numbers of sessions that answer at once.
    """

    prefill: tuple[int, ...] = (128, 512, 2048)
    short: int = 64
    long: int = 2048
    reply: int = 96
    history: int = 1024
    rounds: int = 3
    together: tuple[int, ...] = (1, 2, 4)


QUICK = Plan(prefill=(128, 512), long=512, reply=32, history=512, rounds=1, together=(1, 2))


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and how it is to be run; None and `auto` leave the choice to the engine."""

    model: ModelInfo
    kernel: str | None = None
    device: str | None = None
    decoding: Decoding = "auto"

    @property
    def title(self) -> str:
        """What to call it while it runs."""
        return f"{self.model.name} ({self.kernel})" if self.kernel else self.model.name


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What is being done; `total` 0 means that its end is not known."""

    title: str
    done: int = 0
    total: int = 0


OnProgress = Callable[[Progress], None]
Step = tuple[str, Callable[[], Awaitable[list[Figure]]]]


async def run_bench(
    target: Target, plan: Plan, on_progress: OnProgress, engine_factory: EngineFactory | None = None
) -> BenchRun:
    """Measure one target in an engine process of its own, which ends with the call.

    Raises:
        ModelError: if the model is known not to load.
        EngineError: if it does not load, or an answer failed.
    """
    model = target.model
    require_loadable(model)
    options = LoadOptions(
        device=target.device,
        kernel=target.kernel,
        decoding=target.decoding,
        servers=load_settings()[0].servers if model.server else {},
    )
    engine = Headless(options=options, engine_factory=engine_factory)
    async with engine:
        begun = time.perf_counter()
        report = await engine.load(model, lambda status: on_progress(_loading(status)))
        loading = Figure("load", "load, with the engine's start", time.perf_counter() - begun, "s")
        bench = _Bench(engine, report, plan)
        figures = [loading, *await bench.run(on_progress)]
        return BenchRun(
            model=model.name,
            path=model.path,
            quantization=model.quant.label(),
            kernel=report.kernel,
            device=report.device,
            dtype=report.dtype,
            decoding=report.decoding,
            decoding_reason=report.decoding_reason,
            versions=engine.versions,
            figures=tuple(figures),
            notes=tuple(dict.fromkeys([*report.warnings, *engine.notes, *bench.notes])),
        )


def _loading(status: LoadStatus) -> Progress:
    return Progress(title=f"Loading: {status.stage}", done=status.done, total=status.total)


class _Bench:
    """The measurements of one loaded model."""

    def __init__(self, engine: Headless, report: LoadReport, plan: Plan) -> None:
        self._engine, self._report, self._plan = engine, report, plan
        self._prompts = Prompts(engine.count)
        self._names = 0
        self.notes: list[str] = []
        self._passes_per_second = 0.0
        self._context = 0.0

    async def run(self, on_progress: OnProgress) -> list[Figure]:
        """Take all figures."""
        figures = self._load()
        steps = self._steps()
        for done, (title, work) in enumerate(steps):
            on_progress(Progress(title=title, done=done, total=len(steps)))
            figures += await work()
        on_progress(Progress(title="Done", done=len(steps), total=len(steps)))
        return figures

    def _steps(self) -> list[Step]:
        lengths = sorted({self._fitting(length, 1) for length in self._plan.prefill})
        steps: list[Step] = [("Counting tokens", self._calibrate)]
        steps += [(f"Prefill, {length:,} tokens", partial(self._prefill, length)) for length in lengths]
        steps += [
            ("Decode, short context", partial(self._decode, "short", self._plan.short)),
            ("Decode, long context", partial(self._decode, "long", self._plan.long)),
            ("First token", self._first_token),
        ]
        steps += [(f"{count} at once", partial(self._together, count)) for count in self._plan.together]
        if self._report.path.startswith(PREFIX):
            # Its memory is the server's.
            return steps
        # In this order: the copy that is measured needs memory of its own.
        return [*steps, ("Memory", self._memory), ("Memory bandwidth", self._bandwidth)]

    def _fitting(self, length: int, reply: int) -> int:
        """Return the length, or what the context window holds of it beside a reply."""
        window = self._report.context_window
        return length if not window else max(1, min(length, int((window - reply) / ROOM)))

    async def _ask(self, messages: list[ChatMessage], reply: int, session: str = "", seed: int = 0) -> Answer:
        # Sampled, as most chats are: greedy text of small models soon repeats itself, which prompt lookup makes fast.
        sampling = SamplingSettings(temperature=1.0, top_p=1.0, top_k=50, seed=seed, max_new_tokens=reply)
        return await self._engine.ask(messages, sampling, session)

    async def _calibrate(self) -> list[Figure]:
        await self._prompts.calibrate()
        await self._ask([self._prompts.of(self._fitting(self._plan.short, 8))], 8)
        return []

    def _load(self) -> list[Figure]:
        seconds = self._report.seconds
        stages = [Figure(f"load.{_key(stage)}", f"load: {stage}", taken, "s") for stage, taken in seconds.items()]
        held = self._report.weight_bytes
        return [*stages, *([Figure("weights", "weights in memory", held, "bytes")] if held else [])]

    async def _prefill(self, length: int) -> list[Figure]:
        rates = []
        for _ in range(self._plan.rounds):
            answer = await self._ask([self._prompts.of(length)], 1)
            rates.append(answer.statistics.prefill_tokens_per_second)
        return [Figure(f"prefill.{length}", f"prefill, {length:,} tokens", median(rates), "tok/s")]

    async def _decode(self, name: str, context: int) -> list[Figure]:
        plan = self._plan
        length = self._fitting(context, plan.reply)
        taken = [
            (await self._ask([self._prompts.of(length)], plan.reply, seed=number)).statistics
            for number in range(plan.rounds)
        ]
        seconds = sum(each.decode_seconds for each in taken)
        tokens = sum(max(0, each.new_tokens - 1) for each in taken)
        if not tokens or not seconds:
            self.notes.append(f"The model ended every answer at once: its speed with a {name} context is not known.")
            return []
        guessed = sum(each.accepted for each in taken)
        if name == "short":
            self._passes_per_second = (tokens - guessed) / seconds
            self._context = median(each.prompt_tokens + each.new_tokens / 2 for each in taken)
        label = f"decode after {length:,} tokens"
        return [
            Figure(f"decode.{name}", label, tokens / seconds, "tok/s"),
            Figure(f"decode.{name}.guessed", f"{label}: guessed by prompt lookup", guessed / tokens, "share"),
        ]

    async def _first_token(self) -> list[Figure]:
        """Cold, in the same session again, and back in it after another session's turn."""
        reply = 4
        history = self._fitting(self._plan.history, 3 * reply + FOLLOW_UPS)
        taken: dict[str, list[TurnStatistics]] = {"cold": [], "reuse": [], "warm": []}
        for _ in range(self._plan.rounds):
            session, other = self._name(), self._name()
            messages = [self._prompts.of(history)]
            for kind in taken:
                if kind == "warm":
                    await self._ask([self._prompts.of(self._fitting(self._plan.short, reply))], reply, other)
                answer = await self._ask(messages, reply, session)
                taken[kind].append(answer.statistics)
                messages += [ChatMessage("assistant", answer.text), ask(FOLLOW_UP)]
            self._engine.forget(session)
            self._engine.forget(other)
        labels = {"cold": "cold", "reuse": "next turn of the session", "warm": "back from another session"}
        figures = []
        for kind, turns in taken.items():
            label = f"first token after {history:,} tokens: {labels[kind]}"
            kept = median(turn.reused_tokens / turn.prompt_tokens for turn in turns)
            figures.append(Figure(f"first_token.{kind}", label, median(turn.prefill_seconds for turn in turns), "s"))
            if kind != "cold":
                figures.append(Figure(f"first_token.{kind}.kept", f"{label}: from the cache", kept, "share"))
        return figures

    async def _together(self, count: int) -> list[Figure]:
        """Answers of several sessions at once; what all of them get per second."""
        plan = self._plan
        sessions = [self._name() for _ in range(count)]
        prompts = [[self._prompts.of(self._fitting(plan.short, plan.reply))] for _ in sessions]
        answers = await asyncio.gather(
            *(
                self._ask(messages, plan.reply, session, seed)
                for seed, (messages, session) in enumerate(zip(prompts, sessions, strict=True))
            )
        )
        for session in sessions:
            self._engine.forget(session)
        tokens = sum(answer.statistics.new_tokens for answer in answers)
        rate = tokens / max(answer.seconds for answer in answers)
        label = "one session" if count == 1 else f"{count} sessions at once, all together"
        return [Figure(f"together.{count}", label, rate, "tok/s")]

    async def _bandwidth(self) -> list[Figure]:
        measured = await self._engine.measure_bandwidth()
        copied, token_bytes = measured["copy_bytes_per_second"], measured["token_bytes"]
        figures = [
            Figure("token_bytes", "weights read per token", token_bytes, "bytes"),
            Figure("bandwidth.copy", "memory: measured copy", copied, "bytes/s"),
        ]
        if self._passes_per_second:
            per_pass = token_bytes + self._context * self._report.kv_token_bytes
            used = per_pass * self._passes_per_second
            figures += [
                Figure("bandwidth.decode", "memory: read while decoding", used, "bytes/s"),
                Figure("bandwidth.share", "decoding, share of the copy", used / copied, "share"),
            ]
        return figures

    async def _memory(self) -> list[Figure]:
        pid = self._engine.pid
        figures = []
        host = peak_process_bytes(pid) if pid is not None else None
        if host is not None:
            figures.append(Figure("memory.host", "peak host memory of the engine", host, "bytes"))
        device = max(self._engine.device_peak, await in_background(_device_bytes, pid))
        if device:
            figures.append(Figure("memory.device", "peak device memory of the engine", device, "bytes"))
        return figures

    def _name(self) -> str:
        self._names += 1
        return f"bench-{self._names}"


def _device_bytes(pid: int | None) -> int:
    """Bytes of the engine on all GPUs as the driver sees them: the CUDA context is part of it."""
    monitor = GpuMonitor()
    try:
        snapshot = monitor.snapshot(pid)
    finally:
        monitor.close()
    if not isinstance(snapshot, GpuSnapshot):
        return 0
    return sum(device.engine_bytes or 0 for device in snapshot.devices)


def _key(stage: str) -> str:
    return stage.replace(" ", "_")
