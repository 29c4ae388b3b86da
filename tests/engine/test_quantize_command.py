"""`quantchat quantize` with the real engine and the tiny model; what it made is loaded and chatted with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from engine.rig import Rig
from engine.tiny import TEXTS
from quantchat.catalog.reader import read_model
from terminal import quantchat_command

pytestmark = pytest.mark.engine
PATIENCE = 240


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    asked = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in TEXTS
    ]
    path.write_text("\n".join(map(json.dumps, asked)))
    return path


def quantize(folder: Path, *arguments: str) -> list[dict[str, object]]:
    """Run the command in a fresh home; return what it told a program."""
    done = subprocess.run(
        quantchat_command("quantize", "--json", *arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"QUANTCHAT_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "hub")},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_is_quantized_recognised_loaded_and_chatted_with(
    rig: Rig, models: Path, tmp_path: Path, calibration: Path
) -> None:
    out = tmp_path / "made"
    events = quantize(tmp_path, str(models / "dense"), "-o", str(out), "--calibration", str(calibration), "--no-smoke")
    named = {event["event"] for event in events}
    assert named == {"preflight", "calibration", "module", "progress", "done"}
    modules = [event for event in events if event["event"] == "module"]
    assert len(modules) == events[0]["matrices"] == 14
    assert all(event["error"] >= 0 for event in modules)
    shares = [event["share"] for event in events if event["event"] == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    model = read_model(out)
    assert not model.problems
    assert model.quant.label() == "GPTQ 4b g128"
    # What was foretold of its size is what was written, but for the tensors' padding.
    assert events[0]["result"] == pytest.approx(model.weight_bytes, rel=0.02)
    loaded = rig.load(out)
    assert not hasattr(loaded, "error"), loaded
    _, end = rig.answer()
    assert end.statistics.new_tokens > 0
    assert "| Text | chats.jsonl |" in (out / "README.md").read_text()
