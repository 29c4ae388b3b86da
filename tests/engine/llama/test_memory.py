"""Predicted bytes against what a real engine process holds with the real SmolLM2 file, and how soon it is there."""

from __future__ import annotations

from pathlib import Path

import psutil

from demo_gguf import demo_gguf
from gpu.process import EngineProcess
from quantchat.catalog.fit import Setting, predict
from quantchat.catalog.reader import read_model
from quantchat.engine import protocol as p

SHARE = 0.05
LIGHT = 100 * 1024**2
"""An engine with torch holds eight times as much before it has a model."""


async def test_what_the_demo_file_takes_is_predicted(tmp_path: Path) -> None:
    model = read_model(demo_gguf())
    found = predict(model, Setting())
    async with EngineProcess(tmp_path, backend="llama") as engine:
        process = psutil.Process(engine.client.pid)
        idle = process.memory_info().rss
        assert idle < LIGHT
        loaded = await engine.load(model, "cpu")
        assert isinstance(loaded, p.Loaded), loaded
        report = loaded.report
        assert abs(found.predicted - report.device_bytes) <= SHARE * report.device_bytes
        ended = await engine.answer("a", "What is the capital of France?")
        assert isinstance(ended, p.Finished)
        # Nothing more is taken afterwards: the cells and the buffers are there.
        assert process.memory_info().rss <= (1 + SHARE) * report.device_bytes
    assert engine.gone
