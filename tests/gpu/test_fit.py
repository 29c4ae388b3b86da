"""Predicted bytes against what an engine process holds on a real card, at three context lengths.

On the CPU the same is done with tiny models and the resident memory, to prove the test itself.
"""

from __future__ import annotations

import psutil
import pytest
import torch

from gpu.conftest import DEVICE, RECIPES
from gpu.process import EngineProcess
from quantchat.catalog.fit import Setting, predict
from quantchat.domain.kernel_table import TABLE
from quantchat.engine import protocol as p
from quantchat.hardware.gpu import GpuMonitor, GpuSnapshot

CUDA = DEVICE.startswith("cuda")
SHARE, SLACK = 0.05, (32 if CUDA else 96) * 2**20
"""The slack is for tiny models, of which the runtime is nearly all."""
REPEATS = {"short": 10, "medium": 150, "long": 1000} if CUDA else {"short": 2, "medium": 5, "long": 10}
WORDS = "All that can be counted will be counted again tomorrow. "


def held_by(pid: int) -> int:
    """Bytes of a process on the card, as the driver says."""
    if not CUDA:
        return int(psutil.Process(pid).memory_info().rss)
    seen = GpuMonitor().snapshot(pid)
    assert isinstance(seen, GpuSnapshot), seen
    share = seen.devices[torch.device(DEVICE).index or 0].engine_bytes
    if share is None:
        pytest.skip("the driver does not tell what a process holds")
    return share


@pytest.mark.parametrize("length", REPEATS)
@pytest.mark.parametrize("kind", ["plain", "awq"])
async def test_a_conversation(checkpoint, tmp_path, kind: str, length: str) -> None:
    model, device = checkpoint(RECIPES[kind]), "cuda" if CUDA else "cpu"
    async with EngineProcess(tmp_path) as engine:
        runtime = None if CUDA else held_by(engine.client.pid)
        loaded = await engine.load(model, DEVICE)
        assert isinstance(loaded, p.Loaded), loaded
        kernel = next(row for row in TABLE if row.name == loaded.report.kernel and row.device == device)
        graphs = loaded.report.decoding == "graph"
        setting = Setting(device=device, kernel=kernel, graphs=graphs, runtime=runtime)
        assert predict(model, setting).predicted == pytest.approx(loaded.report.device_bytes, rel=SHARE, abs=SLACK)
        end = await engine.answer("a", WORDS * REPEATS[length])
        assert isinstance(end, p.Finished), end
        tokens = end.statistics.prompt_tokens + end.statistics.new_tokens
        held = held_by(engine.client.pid)
    assert tokens > 10 * REPEATS[length]
    assert predict(model, setting, tokens).total == pytest.approx(held, rel=SHARE, abs=SLACK)
