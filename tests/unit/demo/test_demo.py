"""The demo's steps: skipped when done, resumed after a stop, nothing half made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from quantchat.domain.backends import OWN, EngineSpec
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import (
    Command,
    Dequantize,
    Event,
    JobFailed,
    JobFinished,
    JobProgress,
    Quantize,
    Stop,
)
from quantchat.errors import Cancelled, EngineGone, ErrorReport, QuantchatError
from quantchat.services import demo as demo_module
from quantchat.services import fetch
from quantchat.services.demo import NEEDED, Demo, Progress, recommend_sampling
from quantchat.services.fetch import HubModel, Package
from quantchat.services.jobs import run_job
from unit_demo import CONTENT, files_below, write_wheel

REAL_PACKAGE = demo_module.PACKAGE


def make_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in NEEDED:
        (folder / name).write_text("{}")


class ScriptedJobs:
    """Stands in for the engine client: does jobs at once, fails, dies or hangs."""

    def __init__(self, behaviour: str = "work") -> None:
        self.behaviour = behaviour
        self.sent: list[Command] = []
        self.closed = 0
        self.begun = asyncio.Event()

    def __call__(self, on_event: Callable[[Event | EngineExited], None], _spec: EngineSpec = OWN) -> EngineClient:
        self.on_event = on_event
        return cast(EngineClient, self)

    running = True
    pid = None

    async def start(self) -> None: ...

    async def close(self) -> None:
        self.closed += 1

    def kill(self) -> None: ...

    def send(self, command: Command) -> None:
        self.sent.append(command)
        if isinstance(command, Stop):
            self.on_event(JobFailed(job=command.turn, error=Cancelled("Stopped").report))
        elif isinstance(command, Dequantize | Quantize):
            self._begin(command)

    def _begin(self, job: Dequantize | Quantize) -> None:
        self.on_event(JobProgress(job=job.job, stage="working", done=1, total=2))
        self.begun.set()
        if self.behaviour == "work":
            make_folder(Path(job.output))
            self.on_event(JobFinished(job=job.job, output=job.output))
        elif self.behaviour == "fail":
            self.on_event(JobFailed(job=job.job, error=ErrorReport(code="job", title="It failed")))
        elif self.behaviour == "die":
            self.on_event(EngineExited(code=None, signal="SIGKILL", log_tail="the last line", expected=False))

    @property
    def jobs(self) -> list[str]:
        return [type(command).__name__ for command in self.sent]


@pytest.fixture(autouse=True)
def small_package(package: Package, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(shelf)
    monkeypatch.setattr(demo_module, "PACKAGE", package)


async def test_all_steps_in_order_and_a_second_call_does_nothing(tmp_path: Path) -> None:
    engine = ScriptedJobs()
    demo = Demo(tmp_path / "models", tmp_path / "cache", engine)
    seen: list[Progress] = []
    assert not demo.ready
    assert await demo.prepare(seen.append) == tmp_path / "models" / demo_module.QUANTIZED
    assert list(dict.fromkeys(step.step for step in seen)) == ["fetch", "dequantize", "quantize"]
    assert engine.jobs == ["Dequantize", "Quantize"]
    assert engine.closed == 2
    assert demo.ready
    await demo.prepare(lambda step: pytest.fail("nothing was left to do"))
    assert engine.jobs == ["Dequantize", "Quantize"]


async def test_steps_that_are_done_are_skipped(tmp_path: Path, offline: None) -> None:
    engine = ScriptedJobs()
    make_folder(tmp_path / "models" / demo_module.PLAIN)
    seen: list[Progress] = []
    await Demo(tmp_path / "models", tmp_path / "cache", engine).prepare(seen.append)
    assert engine.jobs == ["Quantize"]
    assert [step.title for step in seen if "done already" in step.title] == [
        "Downloading SmolLM2: done already",
        "Unpacking to bf16: done already",
    ]


async def test_the_hub_folder_is_taken_when_the_hub_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(model: HubModel) -> bool:
        return True

    async def load(model: HubModel, target: Path, report: object) -> None:
        make_folder(target)

    monkeypatch.setattr(fetch, "hub_answers", answers)
    monkeypatch.setattr(fetch, "fetch_hub_folder", load)
    engine = ScriptedJobs()
    await Demo(tmp_path / "models", tmp_path / "cache", engine).prepare(lambda step: None)
    assert engine.jobs == ["Quantize"]
    assert not (tmp_path / "cache").exists()


async def test_cancelling_stops_the_job_and_ends_the_engine(tmp_path: Path) -> None:
    engine = ScriptedJobs("hang")
    demo = Demo(tmp_path / "models", tmp_path / "cache", engine)
    work = asyncio.create_task(demo.prepare(lambda step: None))
    await asyncio.wait_for(engine.begun.wait(), 20)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert engine.jobs == ["Dequantize", "Stop"]
    assert engine.closed == 1
    assert demo.gguf.read_bytes() == CONTENT
    engine.behaviour = "work"
    await demo.prepare(lambda step: None)
    assert engine.jobs[2:] == ["Dequantize", "Quantize"]


@pytest.mark.parametrize(("behaviour", "error"), [("fail", QuantchatError), ("die", EngineGone)])
async def test_a_job_that_fails_is_told_and_leaves_nothing(
    tmp_path: Path, behaviour: str, error: type[Exception]
) -> None:
    engine = ScriptedJobs(behaviour)
    demo = Demo(tmp_path / "models", tmp_path / "cache", engine)
    # What a killed engine process leaves: its pid is no longer in use.
    (tmp_path / "models" / f".{demo_module.PLAIN}.partial-4194305").mkdir(parents=True)
    with pytest.raises(error):
        await demo.prepare(lambda step: None)
    assert files_below(tmp_path / "models") == []
    assert engine.closed == 1


async def test_a_job_whose_progress_is_no_longer_wanted_is_stopped(tmp_path: Path) -> None:
    engine = ScriptedJobs("hang")
    events = run_job(Quantize(job="q", source="a", output=str(tmp_path / "b")), engine)
    progress = await anext(events)
    assert isinstance(progress, JobProgress)
    assert progress.done == 1
    await events.aclose()
    assert engine.jobs == ["Quantize", "Stop"]
    assert engine.closed == 1


def test_the_recommendation_is_written_once_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text('{"_from_model_config": true, "eos_token_id": 2}')
    recommend_sampling(tmp_path)
    assert json.loads(path.read_text()) == {"eos_token_id": 2, "do_sample": True, "temperature": 0.2, "top_p": 0.9}
    path.write_text('{"temperature": 0.7}')
    recommend_sampling(tmp_path)
    assert json.loads(path.read_text()) == {"temperature": 0.7}


def test_the_real_package_is_pinned() -> None:
    assert "==" in REAL_PACKAGE.requirement
    assert len(REAL_PACKAGE.sha256) == 64
