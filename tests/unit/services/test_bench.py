"""`quantchat bench` over the scripted engine: what is measured, compared, refused, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

import msgspec
import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from quantchat.catalog.reader import read_model
from quantchat.domain.bench import BenchRun, Figure, compare
from quantchat.domain.models import Verdict
from quantchat.errors import EngineGone, GenerationError, LoadError, ModelError, QuantchatError
from quantchat.services.bench import Plan, Progress, Target, run_bench
from unit.catalog.model_folders import make_gptq

PLAN = Plan(prefill=(16, 64), short=12, long=256, reply=6, history=96, rounds=2, together=(1, 3))
FAST = {"tokens_per_second": 400, "prefill_seconds": 0.02}
ERROR = {"code": "kernel", "title": "The kernel broke", "detail": "It cannot be built", "remedy": ""}


class Lab:
    """A model folder and scripted engines, and what they were started for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_gptq(folder / "alpha")
        self.model = read_model(folder / "alpha")
        self.steps: list[Progress] = []
        self._script = folder / "script.json"
        self.script()
        monkeypatch.setenv("QUANTCHAT_HOME", str(folder))
        monkeypatch.setenv("QUANTCHAT_ENGINE_COMMAND", shlex.join([sys.executable, str(SCRIPTED_ENGINE)]))
        monkeypatch.setenv("QUANTCHAT_SCRIPT", str(self._script))

    def script(self, **script: object) -> None:
        self._script.write_text(json.dumps({"answers": [FAST], **script}))

    async def run(self, plan: Plan = PLAN, **how: str) -> BenchRun:
        return await run_bench(Target(model=self.model, **how), plan, self.steps.append)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    yield Lab(tmp_path, monkeypatch)
    assert not children(str(SCRIPTED_ENGINE))


async def test_everything_is_measured_and_told(lab: Lab) -> None:
    run = await lab.run(kernel="gptq_torch_aten")
    assert (run.model, run.kernel, run.quantization) == ("alpha", "gptq_torch_aten", "GPTQ 4b g128")
    keys = [figure.key for figure in run.figures]
    wanted = ["load", "load.reading_weights", "weights", "prefill.16", "prefill.64", "decode.short", "decode.long"]
    wanted += ["first_token.cold", "first_token.reuse", "first_token.warm", "together.1", "together.3"]
    wanted += ["memory.host", "token_bytes", "bandwidth.copy", "bandwidth.decode", "bandwidth.share"]
    assert [key for key in keys if key in wanted] == wanted
    assert len(set(keys)) == len(keys)
    assert all(figure.value > 0 for figure in run.figures if not figure.key.endswith("guessed"))
    titles = [step.title for step in lab.steps]
    assert any("reading weights" in title for title in titles)
    assert lab.steps[-1].done == lab.steps[-1].total > 0


async def test_prompts_have_the_wanted_lengths_and_stay_inside_the_window(lab: Lab) -> None:
    lab.script(window=100)
    run = await lab.run(Plan(prefill=(16, 64, 5000), short=12, long=5000, reply=6, history=5000, rounds=1))
    lengths = [figure.key for figure in run.figures if figure.key.startswith("prefill.")]
    assert lengths == ["prefill.16", "prefill.64", "prefill.86"]


async def test_sessions_that_answer_at_once_are_counted_together(lab: Lab) -> None:
    run = await lab.run()
    alone, together = run.figure("together.1"), run.figure("together.3")
    assert alone is not None
    assert together is not None
    assert together.value > 1.5 * alone.value


async def test_reuse_is_seen(lab: Lab) -> None:
    lab.script(answers=[{"tokens_per_second": 0, "prefill_seconds": 0.4}])
    run = await lab.run(Plan(prefill=(16,), short=12, long=16, reply=6, history=512, rounds=1, together=(1,)))
    cold, reuse, warm = (run.figure(f"first_token.{kind}") for kind in ("cold", "reuse", "warm"))
    assert cold is not None
    assert reuse is not None
    assert warm is not None
    assert max(reuse.value, warm.value) < cold.value / 2
    for kind in ("reuse", "warm"):
        kept = run.figure(f"first_token.{kind}.kept")
        assert kept is not None
        assert kept.value > 0.8


async def test_an_answer_of_one_token_gives_no_speed_but_a_note(lab: Lab) -> None:
    lab.script(answers=[{"text": "yes"}])
    run = await lab.run()
    assert run.figure("decode.short") is None
    assert run.figure("bandwidth.share") is None
    assert any("its speed" in note for note in run.notes)


async def test_the_next_kernel_is_taken_where_one_fails(lab: Lab) -> None:
    lab.script(load={"fail": ERROR, "next_kernel": "gptq_torch"})
    run = await lab.run()
    assert run.kernel == "gptq_torch"
    assert any("The kernel broke" in note for note in run.notes)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"load": {"fail": ERROR}}, LoadError),
        ({"load": {"crash": True}}, EngineGone),
        ({"exit_at_start": 3}, EngineGone),
        ({"answers": [{"fail": ERROR}]}, GenerationError),
        ({"answers": [{"crash_after_tokens": 1}]}, EngineGone),
    ],
    ids=["load", "crash while loading", "crash at the start", "answer", "crash while answering"],
)
async def test_failures_are_told(lab: Lab, script: dict[str, object], kind: type[QuantchatError]) -> None:
    lab.script(**script)
    with pytest.raises(kind):
        await lab.run()


async def test_a_broken_model_starts_no_engine(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "alpha" / "config.json").write_text("{")
    lab.model = read_model(tmp_path / "alpha")
    with pytest.raises(ModelError):
        await lab.run()
    assert lab.steps == []


async def test_a_model_that_only_lacks_a_package_is_refused_with_the_command_that_installs_it(lab: Lab) -> None:
    lacking = Verdict(state="with", reason="It needs the package x.", install="pip install x")
    lab.model = msgspec.structs.replace(lab.model, verdict=lacking, problems=())
    with pytest.raises(ModelError) as refused:
        await lab.run()
    assert refused.value.report.title == "alpha cannot be loaded"
    assert (refused.value.report.detail, refused.value.report.remedy) == (lacking.reason, lacking.install)
    assert lab.steps == []


@pytest.mark.parametrize("where", ["Loading", "Decode"])
async def test_cancelling_leaves_no_process(lab: Lab, tmp_path: Path, where: str) -> None:
    lab.script(load={"seconds": 1.0}, answers=[{"tokens_per_second": 5}], ignore_shutdown=True)
    reached = asyncio.Event()

    def watch(step: Progress) -> None:
        if step.title.startswith(where):
            reached.set()

    work = asyncio.ensure_future(run_bench(Target(model=lab.model), PLAN, watch))
    async with asyncio.timeout(20):
        await reached.wait()
        while not children(str(SCRIPTED_ENGINE)):  # noqa: ASYNC110 - another program's start is no event of ours
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


def test_runs_are_compared_by_key_against_the_first() -> None:
    def run(**figures: float) -> BenchRun:
        made = tuple(Figure(key, key, value, "tok/s") for key, value in figures.items())
        return BenchRun(model="m", path="", quantization="", kernel="", device="", dtype="", figures=made)

    rows = compare([run(prefill=100.0, decode=20.0), run(prefill=50.0, memory=7.0)])
    assert [(row.key, row.values, row.ratios) for row in rows] == [
        ("prefill", (100.0, 50.0), (1.0, 0.5)),
        ("decode", (20.0, None), (1.0, None)),
        ("memory", (None, 7.0), (None, None)),
    ]
