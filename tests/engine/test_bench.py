"""`quantchat bench` with the real engine on the tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


def test_the_real_engine_is_measured(models: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "quantchat"
    command = [sys.executable, str(program), "bench", "--quick", "--json", "--device", "cpu", str(models / "gptq")]
    environment = os.environ | {"QUANTCHAT_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["device"], run["dtype"]) == ("cpu", "bfloat16")
    assert "torch" in run["versions"]
    figures = {figure["key"]: figure["value"] for figure in run["figures"]}
    assert {"prefill.128", "decode.short", "decode.long", "first_token.cold", "together.2", "memory.host"} <= set(
        figures
    )
    assert all(value > 0 for key, value in figures.items() if not key.endswith("guessed"))
    # Of a turn in a session that is kept most is there already, also after another session's turn.
    assert figures["first_token.reuse.kept"] > 0.5
    assert figures["first_token.warm.kept"] > 0.5
    assert figures["token_bytes"] < figures["weights"]
    assert figures["memory.host"] > figures["weights"]
