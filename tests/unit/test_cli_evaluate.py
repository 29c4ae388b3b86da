"""`quantchat evaluate` on an ordinary pipe, over the scripted engine."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from quantchat.store.quality import FILE
from scripted_quality import DIVERGENCE, PERPLEXITY
from scripted_shell import PATIENCE, Shell
from unit.catalog.model_folders import make_dense, make_gptq


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path, "evaluate", answers=[{"text": "word " * 100, "tokens_per_second": 2000}])
    make_dense(made.models / "alpha")
    make_gptq(made.models / "alpha-GPTQ-3bit", bits=3)
    make_gptq(made.models / "alpha-GPTQ-4bit")
    make_gptq(made.models / "alpha-GPTQ-8bit", bits=8)
    return made


def test_several_models_make_a_table_and_a_chart(shell: Shell) -> None:
    status, out, err = shell.run("3bit", "4bit", "8bit")
    assert status == 0
    assert err == "".join(f"alpha-GPTQ-{bits}bit is measured against alpha.\n" for bits in (3, 4, 8))
    lines = out.splitlines()
    rows = {line.split()[1]: line for line in lines if line[:1] in "ABC" and "alpha-GPTQ" in line}
    assert [line.split()[0] for line in rows.values()] == ["A", "B", "C"]
    for bits in (3, 4, 8):
        assert f"{DIVERGENCE[bits]:.4f}" in rows[f"alpha-GPTQ-{bits}bit"]
    assert any(line.split()[:2] == ["alpha", "unquantized"] and f"{PERPLEXITY:.2f}" in line for line in lines)
    chart = out.partition("KL from alpha")[2]
    # The fewer bits, the further down in the table and the further up in the chart.
    drawn = [line.strip("│┤ 0.1") for line in chart.splitlines() if any(mark in line for mark in "ABC")]
    assert drawn[:3] == ["C", "B", "A"]
    # What is measured is there for the next question, which needs no engine.
    status, again, _ = shell.run("--stored")
    assert (status, again) == (0, out)


def test_json_is_one_object_and_an_ascii_terminal_gets_ascii(shell: Shell) -> None:
    status, out, _ = shell.run("--json", "--against", "alpha", "4bit")
    assert status == 0
    models = json.loads(out)["models"]
    assert [model["model"] for model in models] == ["alpha", "alpha-GPTQ-4bit"]
    assert models[1]["quality"]["divergence"] == DIVERGENCE[4]
    assert models[1]["path"] == str(shell.models / "alpha-GPTQ-4bit")
    status, out, _ = shell.run("--stored", "4bit", PYTHONIOENCODING="ascii")
    assert status == 0
    assert out.isascii()
    assert "KL from alpha" in out


def test_alone_nothing_is_compared(shell: Shell) -> None:
    status, out, err = shell.run("--alone", "4bit")
    assert (status, err) == (0, "")
    assert "KL from" not in out
    assert "alpha-GPTQ-4bit" in out


def test_a_model_that_is_to_be_its_own_reference_is_measured_alone(shell: Shell) -> None:
    status, out, err = shell.run("--against", "alpha", "alpha")
    assert (status, err) == (0, "alpha is its own reference: it is measured alone.\n")
    assert "KL from" not in out


def test_one_that_fails_is_named_after_the_others(shell: Shell) -> None:
    (shell.models / "alpha-GPTQ-3bit" / "model.safetensors").unlink()
    status, out, err = shell.run("--against", "alpha", "3bit", "4bit")
    assert status == 4
    assert "alpha-GPTQ-4bit" in out
    assert "alpha-GPTQ-3bit cannot be loaded" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "No model was named"),
        (("--alone", "--against", "alpha", "4bit"), "exclude each other"),
        (("gamma",), "No model is called gamma"),
        (("--kernel", "none", "4bit"), "'none' is no kernel"),
        (("--text", "/nowhere/text.txt", "4bit"), "does not exist"),
        (("--tokens", "1" + "0" * 30, "4bit"), "--tokens"),
        (("--window", "1" + "0" * 30, "4bit"), "--window"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    status, out, err = shell.run(*arguments)
    assert status in (2, 4)
    assert words in err
    assert out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_engine(shell: Shell, number: signal.Signals) -> None:
    shell.script(load={"seconds": 20})
    with shell.start("4bit") as process:
        end = time.monotonic() + PATIENCE
        while not children(str(SCRIPTED_ENGINE)):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Stopped" in err
    assert out == ""
    assert not children(str(SCRIPTED_ENGINE))
    assert not list(shell.models.glob(f"*/{FILE}"))


def test_nothing_measured_is_said(shell: Shell) -> None:
    assert shell.run("--stored") == (0, "", "Nothing was measured of these models yet.\n")
