"""`quantchat bench` on an ordinary pipe, over the scripted engine."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from scripted_shell import PATIENCE, Shell
from unit.catalog.model_folders import make_gptq


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path, "bench", answers=[{"tokens_per_second": 2000}])
    for name in ("alpha-GPTQ", "beta-GPTQ"):
        make_gptq(made.models / name)
    return made


def test_one_model_makes_a_table_and_a_pipe_gets_no_bars(shell: Shell) -> None:
    status, out, err = shell.run("--quick", "alpha")
    assert (status, err) == (0, "")
    assert out.startswith("alpha-GPTQ · GPTQ 4b g128 · gptq_torch_aten · cpu")
    assert "first token after 512 tokens: next turn of the session" in out
    assert "×" not in out


def test_two_kernels_stand_side_by_side_with_their_ratio(shell: Shell) -> None:
    status, out, _ = shell.run("--quick", "--kernel", "torch", "--kernel", "awq_gemm", "alpha")
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
    status, out, _ = shell.run("--quick", "--json", str(shell.models / "alpha-GPTQ"), "beta-GPTQ")
    assert status == 0
    said = json.loads(out)
    assert [run["model"] for run in said["runs"]] == ["alpha-GPTQ", "beta-GPTQ"]
    rates = [
        next(figure["value"] for figure in run["figures"] if figure["key"] == "decode.short") for run in said["runs"]
    ]
    assert said["ratios"]["decode.short"] == [1.0, pytest.approx(rates[1] / rates[0])]


def test_a_failure_does_not_take_the_other_figures_along(shell: Shell) -> None:
    (shell.models / "beta-GPTQ" / "config.json").write_text("{")
    status, out, err = shell.run("--quick", "beta-GPTQ", "alpha-GPTQ")
    assert status == 4
    assert out.startswith("alpha-GPTQ")
    assert "beta-GPTQ cannot be loaded" in err


def test_an_unknown_name_gets_the_near_ones(shell: Shell) -> None:
    make_gptq(shell.models / "aaa-unlike")
    status, out, err = shell.run("betta-GPTQ")
    assert (status, out) == (4, "")
    assert "No model is called betta-GPTQ" in err
    assert "Models here: alpha-GPTQ, beta-GPTQ, aaa-unlike" in err or "Models here: beta-GPTQ" in err


@pytest.mark.parametrize(
    "arguments", [(), ("--decoding", "magic", "alpha"), ("--kernel", "torch", "--kernel", "magic", "alpha")]
)
def test_wrong_arguments_are_explained(shell: Shell, arguments: tuple[str, ...]) -> None:
    status, _, err = shell.run(*arguments)
    assert status == 2
    assert "Usage:" in err


def test_names_cannot_command_the_terminal(shell: Shell) -> None:
    make_gptq(shell.models / "evil\x1b]0;owned\x07")
    shell.script(load={"fail": {"code": "load", "title": "bad\x1b[2J", "detail": "", "remedy": ""}})
    status, out, err = shell.run("--quick", "evil")
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
