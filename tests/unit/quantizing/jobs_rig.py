"""An engine client without a process, which plays one quantization; and what such a job needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from quantchat.domain.backends import OWN, EngineSpec
from quantchat.domain.quantizing import CalibrationReport, Recipe
from quantchat.engine.protocol import (
    Calibrated,
    Command,
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
)
from quantchat.errors import Cancelled, ErrorReport
from quantchat.services.quantizing.plan import Plan, Preflight
from unit.catalog.model_folders import make_gptq

MODULES = ("self_attn.q_proj", "mlp.down_proj")
REPORT = CalibrationReport(samples=12, available=14, tokens=900, shortest=20, middle=70, longest=120, cut=1)


class ScriptedEngine:
    """Does what a job is told to: `work`, `fail`, `die`, `hang`, or `late`, which makes the folder and then hangs."""

    def __init__(self, behaviour: str = "work", layers: int = 3) -> None:
        self.behaviour, self.layers = behaviour, layers
        self.sent: list[Command] = []
        self.closed = 0
        self.begun = asyncio.Event()
        self.pid: int | None = None
        self.running = True

    def __call__(self, on_event: Callable[[Event | EngineExited], None], _spec: EngineSpec = OWN) -> ScriptedEngine:
        self.on_event = on_event
        return self

    async def start(self) -> None:
        self.on_event(Ready(pid=1, versions={"torch": "0.1-scripted"}))

    async def close(self, grace: float = 2.0) -> None:
        self.closed += 1

    def kill(self) -> None:
        self.behaviour = "killed"

    def send(self, command: Command) -> None:
        self.sent.append(command)
        if isinstance(command, Stop):
            self.on_event(JobFailed(job=command.turn, error=Cancelled("Stopped").report))
        elif isinstance(command, Quantize):
            self._play(command)

    def _play(self, job: Quantize) -> None:
        self.on_event(JobProgress(job=job.job, stage="reading weights", share=0.1))
        self.on_event(Calibrated(job=job.job, report=REPORT))
        self.on_event(Log(level="info", text="a line\x1b[2J of the log"))
        for layer in range(1 if self.behaviour == "hang" else self.layers):
            for module in MODULES:
                error = 0.01 * (layer + 1) + (module == MODULES[1])
                self.on_event(
                    JobModule(job=job.job, layer=layer, layers=self.layers, module=module, error=error, seconds=0.5)
                )
            share = 0.1 + 0.9 * (layer + 1) / self.layers
            # One that falls back is not to be believed.
            for told in (share, share / 2):
                self.on_event(JobProgress(job=job.job, stage="quantizing layers", share=told))
        self._end(job)
        self.begun.set()

    def _end(self, job: Quantize) -> None:
        if self.behaviour in ("work", "late"):
            make_gptq(Path(job.output))
        if self.behaviour == "work":
            self.on_event(JobFinished(job=job.job, output=job.output))
        elif self.behaviour == "fail":
            self.on_event(JobFailed(job=job.job, error=ErrorReport(code="not-finite", title="It failed")))
        elif self.behaviour == "die":
            self.on_event(EngineExited(code=None, signal="SIGKILL", log_tail="the last line", expected=False))


def preflight(folder: Path, **changes: object) -> Preflight:
    """Of a plan without a question afterwards."""
    plan = Plan(source=str(folder / "source"), output=folder / "made", recipe=Recipe(group_size=64), smoke=False)
    return Preflight(plan=msgspec.structs.replace(plan, **changes), seconds=100.0)


def shares(states: Sequence[float]) -> bool:
    """Whether they never fall."""
    return all(before <= after for before, after in pairwise(states))
