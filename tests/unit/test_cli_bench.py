"""`quantchat bench` on an ordinary pipe, over the scripted engine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from unit.catalog.model_folders import make_gptq

PATIENCE = 30.0


class Shell:
    """Runs `quantchat` in a fresh home with some models."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self._script = folder / "script.json"
        self.script(answers=[{"tokens_per_second": 2000}])
        self._environment = os.environ | {
            "QUANTCHAT_HOME": str(folder / "home"),
            "HF_HUB_CACHE": str(folder / "hub"),
            "QUANTCHAT_ENGINE_COMMAND": shlex.join([sys.executable, str(SCRIPTED_ENGINE)]),
            "QUANTCHAT_SCRIPT": str(self._script),
        }

    def script(self, **script: object) -> None:
        self._script.write_text(json.dumps(script))

    def add(self, *names: str) -> None:
        for name in names:
            make_gptq(self.models / name)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).parent / "quantchat"
        return subprocess.Popen(
            [sys.executable, str(program), "--models-dir", str(self.models), "bench", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def bench(self, *arguments: str) -> tuple[int, str, str]:
        """Run to the end; exit status, stdout, stderr."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.add("alpha-GPTQ", "beta-GPTQ")
    return made


def test_one_model_makes_a_table_and_a_pipe_gets_no_bars(shell: Shell) -> None:
    status, out, err = shell.bench("--quick", "alpha")
    assert (status, err) == (0, "")
    assert out.startswith("alpha-GPTQ · GPTQ 4b g128 · gptq_torch_aten · cpu")
    assert "first token after 512 tokens: next turn of the session" in out
    assert "×" not in out


def test_two_kernels_stand_side_by_side_with_their_ratio(shell: Shell) -> None:
    status, out, _ = shell.bench("--quick", "--kernel", "torch", "--kernel", "awq_gemm", "alpha")
    assert status == 0
    heads = out.splitlines()[:2]
    assert [head[0] for head in heads] == ["A", "B"]
    assert " torch " in heads[0]
    assert " awq_gemm " in heads[1]
    assert "B / A" in out
    rows = [line for line in out.splitlines() if line.startswith("decode after")]
    assert rows
    assert all(line.endswith((" ×", "-")) for line in rows)


def test_two_models_as_json(shell: Shell) -> None:
    status, out, _ = shell.bench("--quick", "--json", str(shell.models / "alpha-GPTQ"), "beta-GPTQ")
    assert status == 0
    said = json.loads(out)
    assert [run["model"] for run in said["runs"]] == ["alpha-GPTQ", "beta-GPTQ"]
    rates = [
        next(figure["value"] for figure in run["figures"] if figure["key"] == "decode.short") for run in said["runs"]
    ]
    assert said["ratios"]["decode.short"] == [1.0, pytest.approx(rates[1] / rates[0])]


def test_a_failure_does_not_take_the_other_figures_along(shell: Shell) -> None:
    (shell.models / "beta-GPTQ" / "config.json").write_text("{")
    status, out, err = shell.bench("--quick", "beta-GPTQ", "alpha-GPTQ")
    assert status == 4
    assert out.startswith("alpha-GPTQ")
    assert "beta-GPTQ cannot be loaded" in err


def test_an_unknown_name_gets_the_near_ones(shell: Shell) -> None:
    shell.add("aaa-unlike")
    status, out, err = shell.bench("betta-GPTQ")
    assert (status, out) == (4, "")
    assert "No model is called betta-GPTQ" in err
    assert "Models here: alpha-GPTQ, beta-GPTQ, aaa-unlike" in err or "Models here: beta-GPTQ" in err


@pytest.mark.parametrize(
    "arguments", [(), ("--decoding", "magic", "alpha"), ("--kernel", "torch", "--kernel", "magic", "alpha")]
)
def test_wrong_arguments_are_explained(shell: Shell, arguments: tuple[str, ...]) -> None:
    status, _, err = shell.bench(*arguments)
    assert status == 2
    assert "Usage:" in err


def test_names_cannot_command_the_terminal(shell: Shell) -> None:
    shell.add("evil\x1b]0;owned\x07")
    shell.script(load={"fail": {"code": "load", "title": "bad\x1b[2J", "detail": "", "remedy": ""}})
    status, out, err = shell.bench("--quick", "evil")
    assert status == 5
    assert "bad" in err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_engine(shell: Shell, number: signal.Signals) -> None:
    shell.script(load={"seconds": 60}, ignore_shutdown=True)
    with shell.start("alpha") as process:
        deadline = time.monotonic() + PATIENCE
        while not (engines := children(str(SCRIPTED_ENGINE), process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Stopped" in err
    assert "Traceback" not in err
    assert out == ""
    assert not any(engine.is_running() for engine in engines)
