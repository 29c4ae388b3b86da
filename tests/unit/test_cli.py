"""The command line on an ordinary pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unit.catalog.model_folders import make_gptq


def quantchat(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "quantchat"
    environment = os.environ | {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def test_models_lists_folders_and_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    make_gptq(tmp_path / "models" / "evil\x1b]0;owned\x07")
    done = quantchat(tmp_path, "models", "--models-dir", str(tmp_path / "models"))
    assert done.returncode == 0
    assert "GPTQ 4b" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--model", "x")])
def test_without_a_terminal_it_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = quantchat(tmp_path, *arguments)
    assert done.returncode != 0
    assert "terminal" in done.stderr
    assert "Traceback" not in done.stderr
