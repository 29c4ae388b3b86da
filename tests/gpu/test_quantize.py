"""Models are quantized on the device, told module by module, stopped, loaded, and measured against their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import tiny
from engine.quantizing import command, write_calibration
from gpu.conftest import DEVICE
from gpu.process import EngineProcess
from quantchat.catalog.reader import read_model
from quantchat.engine import protocol as p

RECIPES = [{"bits": 4}, {"bits": 8}, {"bits": 4, "desc_act": True}, {"method": "awq"}]


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "dense"
    tiny.make_dense(folder)
    return folder


async def evaluated(engine: EngineProcess, folder: Path, **what: str) -> dict[str, float]:
    """Load a folder and measure it on the bundled text."""
    loaded = await engine.load(read_model(folder), DEVICE)
    assert isinstance(loaded, p.Loaded), loaded
    job = f"measure {folder.name}"
    engine.client.send(p.Evaluate(job=job, window=128, tokens=512, **what))
    end = await engine.wait(p.JobFinished, p.JobFailed, matches=lambda event: event.job == job)
    assert isinstance(end, p.JobFinished), end
    return end.figures


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(map(str, recipe.values())))
async def test_a_recipe(dense: Path, tmp_path: Path, recipe: dict[str, object]) -> None:
    made, logits = tmp_path / "made", str(tmp_path / "logits")
    async with EngineProcess(tmp_path) as engine:
        engine.client.send(command(dense, made, write_calibration(tmp_path), **recipe))
        end = await engine.wait(p.JobFinished, p.JobFailed)
        assert isinstance(end, p.JobFinished), end
    told = [event for event in engine.events if isinstance(event, p.JobModule)]
    assert len(told) == 14
    assert [event.share for event in engine.events if isinstance(event, p.JobProgress)][-1] == 1.0
    assert not read_model(made).problems
    async with EngineProcess(tmp_path) as engine:
        await evaluated(engine, dense, keep=logits)
    async with EngineProcess(tmp_path) as engine:
        figures = await evaluated(engine, made, against=logits)
    assert 0 < figures["divergence"] < (0.1 if recipe.get("bits") == 8 else 3)


async def test_a_stop(dense: Path, tmp_path: Path) -> None:
    made, calibration = tmp_path / "out" / "made", write_calibration(tmp_path)
    async with EngineProcess(tmp_path) as engine:
        engine.client.send(command(dense, made, calibration))
        await engine.wait(p.JobModule)
        engine.client.send(p.Stop(turn="q"))
        end = await engine.wait(p.JobFinished, p.JobFailed)
    assert isinstance(end, p.JobFailed)
    assert end.error.code == "cancelled"
    assert list(made.parent.iterdir()) == []
