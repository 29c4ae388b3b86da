"""`quantchat compare` on an ordinary pipe, over the scripted engine."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from quantchat.cli.compare import _prompt
from quantchat.errors import UsageError
from scripted_shell import PATIENCE, Shell
from unit.catalog.model_folders import make_gptq

ANSWERS: list[dict[str, object]] = [
    {"model": "beta", "text": "The capital is \x1b[31mPerth, mate.", "tokens_per_second": 2000},
    {"text": "The capital is Paris.", "tokens_per_second": 2000},
]


@pytest.fixture
def shell(tmp_path: Path):
    made = Shell(tmp_path, "compare", "--device", "cpu", answers=ANSWERS)
    for name in ("alpha", "beta"):
        make_gptq(made.models / name)
    yield made
    assert not children(str(SCRIPTED_ENGINE))


def test_both_answers_and_the_first_difference_are_told(shell: Shell) -> None:
    status, out, err = shell.run("alpha", "beta", "-p", "The capital?", "--seed", "7")
    assert (status, err) == (0, "")
    assert "A  alpha  GPTQ 4b g128 · gptq_" in out
    assert "The capital is Paris." in out
    assert "The capital is [31mPerth, mate." in out
    assert "\x1b" not in out
    assert "The first difference is token 4: A says ' Paris.', B says ' [31mPerth,'." in out
    assert "Seed 7, both at once." in out


def test_json_holds_everything(shell: Shell) -> None:
    status, out, _ = shell.run("alpha", "beta", "--json", "--preset-b", "exact", stdin="The capital?\n")
    assert status == 0
    found = json.loads(out)
    assert (found["prompt"], found["verdict"], found["at_once"]) == ("The capital?", "differs", True)
    left, right = found["sides"]
    assert (left["side"], left["model"], left["text"]) == ("A", "alpha", "The capital is Paris.")
    assert left["difference"] == {"token": 4, "channel": "answer", "start": 14, "end": 21, "text": " Paris."}
    assert (right["preset"], right["sampling"]["temperature"]) == ("exact", 0)
    assert left["statistics"]["seed"] == right["sampling"]["seed"] == found["seed"]


def test_one_model_is_compared_with_itself_under_two_kernels(shell: Shell) -> None:
    status, out, _ = shell.run(
        "alpha", "-p", "The capital?", "--kernel-a", "torch_aten", "--kernel-b", "torch", "--one-by-one", "--json"
    )
    assert status == 0
    found = json.loads(out)
    assert [side["kernel"] for side in found["sides"]] == ["torch_aten", "torch"]
    assert (found["verdict"], found["at_once"]) == ("equal", False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alpha", "beta"), "nothing to ask"),
        (("alpha", "gamma", "-p", "x"), "gamma"),
        (("alpha", "beta", "-p", "x", "--preset", "wild"), "no preset wild"),
        (("alpha", "beta", "-p", "x", "--kernel-a", "wild"), "is no kernel"),
        (("alpha", "beta", "-p", "x", "--seed", "-1"), "--seed"),
        (("alpha", "beta", "-p", "x", "--max-tokens", "1" + "0" * 30), "--max-tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_loads(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    status, out, err = shell.run(*arguments)
    assert (status != 0, out) == (True, "")
    assert words in err


def test_a_closed_standard_input_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    for given in (None, "-"):
        with pytest.raises(UsageError, match="nothing to ask"):
            _prompt(given)


def test_a_side_that_fails_is_told_after_the_other_one(shell: Shell) -> None:
    failure = {"code": "x", "title": "It broke", "detail": "", "remedy": ""}
    shell.script(answers=[{"model": "beta", "fail": failure, "text": "half"}, *ANSWERS])
    status, out, err = shell.run("alpha", "beta", "-p", "The capital?")
    assert status == 5
    assert "The capital is Paris." in out
    assert "It broke" in err


def test_ctrl_c_ends_both_engines(shell: Shell) -> None:
    shell.script(answers=[{"text": "word " * 1000, "tokens_per_second": 20}])
    with shell.start("alpha", "beta", "-p", "be slow") as process:
        end = time.monotonic() + PATIENCE
        while len(children(str(SCRIPTED_ENGINE))) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Stopped" in err
