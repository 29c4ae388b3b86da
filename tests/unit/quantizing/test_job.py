"""A quantization as a service: what it tells, how it is stopped, what it leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quantchat.domain.models import Problem
from quantchat.domain.quantizing import CalibrationChoice
from quantchat.engine.protocol import Command, Quantize, Stop
from quantchat.errors import Cancelled, EngineGone, QuantchatError, StorageError, UsageError
from quantchat.services.picking import SessionPick
from quantchat.services.quantizing import smoke
from quantchat.services.quantizing.job import QuantizeJob
from quantchat.services.quantizing.plan import JobState, Outcome, Preflight, Smoke
from quantchat.services.quantizing.running import Quantizations
from quantchat.store.sessions import SessionStore
from ui.session_rig import make_session
from unit.quantizing.jobs_rig import MODULES, REPORT, ScriptedEngine, preflight, shares


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


async def test_a_job_tells_its_layers_and_ends_with_a_card(tmp_path: Path) -> None:
    states: list[JobState] = []
    engine = ScriptedEngine()
    job = QuantizeJob(preflight(tmp_path), states.append, engine)
    outcome = await job.run()
    assert [state.ended for state in states].count("done") == 1
    assert states[-1] == job.state
    assert states[-1].share == 1.0
    assert shares([state.share for state in states])
    assert (job.state.layer, job.state.layers) == (3, 3)
    assert len(job.state.modules) == 3 * len(MODULES)
    assert job.state.worst is not None
    assert (job.state.worst.layer, job.state.worst.module) == (2, MODULES[1])
    assert job.state.calibration == REPORT
    assert "\x1b" not in "".join(job.state.log)
    assert outcome.folder == tmp_path / "made"
    assert outcome.weight_bytes > 0
    card = (outcome.folder / "README.md").read_text()
    assert "| Group size | 64 |" in card
    assert "torch | 0.1-scripted" in card
    assert engine.closed == 1


async def begun(folder: Path, behaviour: str) -> tuple[ScriptedEngine, QuantizeJob, asyncio.Task[Outcome]]:
    """Start a job and wait for what it meets in its middle."""
    engine = ScriptedEngine(behaviour)
    job = QuantizeJob(preflight(folder), engine_factory=engine)
    running = asyncio.create_task(job.run())
    await asyncio.wait_for(engine.begun.wait(), 20)
    return engine, job, running


async def test_cancelling_stops_the_engine_and_leaves_nothing(tmp_path: Path) -> None:
    # What a killed engine process left: its pid is no longer in use.
    (tmp_path / ".made.partial-4194305").mkdir()
    engine, job, running = await begun(tmp_path, "hang")
    job.cancel()
    with pytest.raises(Cancelled, match="begins anew"):
        await running
    assert [type(command) for command in engine.sent] == [Quantize, Stop]
    assert job.state.ended == "cancelled"
    assert job.state.share < 1
    assert names_below(tmp_path) == set()
    assert engine.closed == 1


async def test_who_waits_for_it_may_be_cancelled_too(tmp_path: Path) -> None:
    engine, job, running = await begun(tmp_path, "hang")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert isinstance(engine.sent[-1], Stop)
    assert job.state.ended == "cancelled"


async def test_a_stop_that_comes_too_late_keeps_the_model(tmp_path: Path) -> None:
    _, job, running = await begun(tmp_path, "late")
    job.cancel()
    outcome = await running
    assert job.state.ended == "done"
    assert "README.md" in names_below(outcome.folder) or outcome.notes
    assert "left out" in outcome.notes[-1].sentence()


async def test_who_waits_and_is_cancelled_too_late_learns_of_the_model(tmp_path: Path) -> None:
    _, job, running = await begun(tmp_path, "late")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.state.ended == "done"
    assert job.state.outcome is not None
    assert job.state.outcome.folder.is_dir()
    assert "the model is whole" in job.state.outcome.notes[-1].sentence()


async def test_whatever_fails_after_it_the_job_ends_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(*_: object) -> Smoke:
        raise RuntimeError("unheard of")

    monkeypatch.setattr(smoke, "ask", ask)
    job = QuantizeJob(preflight(tmp_path, smoke=True), engine_factory=ScriptedEngine())
    outcome = await job.run()
    assert job.state.ended == "done"
    assert "unheard of" in outcome.notes[-1].sentence()
    assert (outcome.folder / "README.md").is_file()


@pytest.mark.parametrize(("behaviour", "error"), [("fail", QuantchatError), ("die", EngineGone)])
async def test_a_failure_is_told_and_leaves_nothing(tmp_path: Path, behaviour: str, error: type[Exception]) -> None:
    job = QuantizeJob(preflight(tmp_path), engine_factory=ScriptedEngine(behaviour))
    with pytest.raises(error) as raised:
        await job.run()
    assert job.state.ended == "failed"
    assert job.state.error is not None
    assert job.state.error.title in str(raised.value)
    assert names_below(tmp_path) == set()


async def test_the_death_of_the_engine_names_the_usual_reason(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="memory ran out"):
        await QuantizeJob(preflight(tmp_path), engine_factory=ScriptedEngine("die")).run()


@pytest.mark.parametrize(("code", "error"), [("output-exists", StorageError), ("group-size", UsageError)])
async def test_what_is_known_to_fail_is_not_begun(tmp_path: Path, code: str, error: type[Exception]) -> None:
    engine = ScriptedEngine()
    fault = Problem(code=code, severity="error", cause="It will not do.", remedy="Take another.")
    plan = preflight(tmp_path).plan
    with pytest.raises(error, match="It will not do"):
        await QuantizeJob(Preflight(plan=plan, problems=(fault,)), engine_factory=engine).run()
    assert engine.sent == []


async def test_one_job_at_a_time_and_the_next_after_its_end(tmp_path: Path) -> None:
    told: list[QuantizeJob] = []
    engine = ScriptedEngine("hang")
    jobs = Quantizations(told.append, engine)
    first = jobs.start(preflight(tmp_path))
    await asyncio.wait_for(engine.begun.wait(), 20)
    assert jobs.running
    with pytest.raises(UsageError, match="runs already"):
        jobs.start(preflight(tmp_path))
    watched: list[QuantizeJob] = []
    jobs.watchers.add(watched.append)
    await jobs.close()
    assert not jobs.running
    assert first.state.ended == "cancelled"
    assert told[-1] is watched[-1] is first
    engine.behaviour = "work"
    ended = asyncio.Event()
    jobs.watchers.add(lambda job: ended.set() if job.state.ended else None)
    second = jobs.start(preflight(tmp_path))
    await asyncio.wait_for(ended.wait(), 20)
    assert second.state.ended == "done"


async def test_own_sessions_are_text_only_while_the_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    store = SessionStore(tmp_path / "sessions")
    store.save(make_session("one", 1, ["a question", "an answer"]))
    read: list[str] = []

    class Reading(ScriptedEngine):
        def send(self, command: Command) -> None:
            if isinstance(command, Quantize):
                read.append(Path(command.calibration.path).read_text())
            super().send(command)

    engine = Reading()
    plan = preflight(tmp_path, sessions=SessionPick(), calibration=CalibrationChoice(samples=5, length=64))
    outcome = await QuantizeJob(plan, engine_factory=engine, store=store).run()
    assert "an answer" in read[0]
    (job,) = (command for command in engine.sent if isinstance(command, Quantize))
    assert (job.calibration.samples, job.calibration.length) == (5, 64)
    assert not any("calibration" in name for name in names_below(tmp_path / "home"))
    card = (outcome.folder / "README.md").read_text()
    assert "one own session" in card
    assert "an answer" not in card
