"""`quantchat quantize` over the scripted engine: on a pipe, for a program, and on a real terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from processes import children
from scripted_shell import Shell
from terminal import Terminal
from unit.catalog.model_folders import make_dense, make_gptq

ANSWER = "People read, cook and sleep."


class Workbench(Shell):
    """Runs `quantchat quantize` with an unquantized model; `hold` keeps a job in its middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "quantize", answers=[{"text": ANSWER}], quantize={"seconds": 0.0})
        self.out = folder / "made"
        self.hold = folder / "go-on"
        self.environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        make_dense(self.models / "Tiny-bf16")

    def left(self) -> list[str]:
        """Names of what stands where the result would, hidden ones too."""
        return sorted(path.name for path in self.folder.iterdir() if "made" in path.name)


@pytest.fixture
def shell(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture
def terminal(shell: Workbench) -> Iterator[Terminal]:
    """A quantization on a terminal that waits in its middle, and answers slowly in the end."""
    shell.script(quantize={"seconds": 0.0, "hold": str(shell.hold)}, answers=[{"text": ANSWER, "tokens_per_second": 2}])
    made = Terminal(shell.command("Tiny-bf16", "-o", str(shell.out)), env=shell.environment, columns=80, lines=24)
    yield made
    made.close()


def test_a_pipe_gets_what_it_takes_the_layers_and_the_folder(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.out))
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("Tiny-bf16 → GPTQ 4b g64, ")
    assert lines[-1] == str(shell.out)
    assert ANSWER in out
    assert [line.split()[1] for line in err.splitlines() if line.startswith("layer")] == ["1", "2", "3", "4"]
    assert "3.00e-04 in mlp.down_proj" in err
    told = [int(line.partition("%")[0]) for line in err.splitlines() if line.partition("%")[0].isdecimal()]
    assert told == sorted(told)
    assert told[-1] == 100
    assert ANSWER in (shell.out / "README.md").read_text()
    assert "\x1b" not in out + err


def test_each_matrix_on_demand(shell: Workbench) -> None:
    status, _, err = shell.run("Tiny-bf16", "-o", str(shell.out), "-v", "--no-smoke")
    assert status == 0, err
    assert sum("self_attn.o_proj" in line for line in err.splitlines()) == 4


def test_the_result_goes_to_the_models_of_quantchat(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "--bits", "8", "--no-smoke")
    assert status == 0, err
    made = Path(out.splitlines()[-1])
    assert made == shell.folder / "home" / "data" / "models" / "Tiny-GPTQ-8bit-g64"
    assert json.loads((made / "config.json").read_text())["quantization_config"]["bits"] == 8
    again = shell.run("Tiny-bf16", "--bits", "8", "--no-smoke")
    assert again[0] == 3
    assert "exists already" in again[2]


def test_a_program_reads_json_lines(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.out), "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["event"] == "preflight"
    assert events[0]["possible"] is True
    assert events[0]["plan"]["recipe"]["group_size"] == 64
    assert [event["module"] for event in events if event["event"] == "module"][:1] == ["self_attn.q_proj"]
    assert sum(event["event"] == "calibration" for event in events) == 1
    shares = [event["share"] for event in events if event["event"] == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert events[-1]["event"] == "done"
    assert events[-1]["folder"] == str(shell.out)
    assert events[-1]["smoke"]["answer"] == ANSWER


def test_a_dry_run_makes_nothing(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.out), "--dry-run")
    assert status == 0, err
    assert "memory" in out
    assert shell.left() == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nothing",), 4, "No model is called nothing"),
        (("Tiny-bf16", "--group-size", "48"), 2, "48 does not divide 64"),
        (("Tiny-bf16", "--bits", "5"), 2, "5 bits are not possible with GPTQ"),
        (("Tiny-bf16", "--calibration", "sessions:nonsense"), 2, "Which sessions?"),
        (("Tiny-bf16", "--calibration", "sessions"), 2, "no sessions yet"),
        (("Packed",), 4, "quantized already (GPTQ 4b g128)"),
        (("x" * 300,), 4, "No model is called xxx"),
        (("Tiny-bf16", "--samples", "1" + "0" * 30), 2, "--samples"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_usual_status(
    shell: Workbench, arguments: tuple[str, ...], status: int, words: str
) -> None:
    make_gptq(shell.models / "Packed")
    got, _, err = shell.run(*arguments, "-o", str(shell.out))
    assert got == status, err
    assert words in err
    assert "Traceback" not in err
    assert shell.left() == []


def test_a_program_reads_of_a_refusal_too(shell: Workbench) -> None:
    status, out, _ = shell.run("Tiny-bf16", "--damping", "2", "-o", str(shell.out), "--json")
    assert status == 2
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["preflight", "error"]
    assert events[0]["possible"] is False
    assert events[1]["code"] == "damping"


def test_names_that_are_no_text_are_told_to_a_program_too(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.folder / "made\udcff"), "--json")
    assert status == 3
    assert "Traceback" not in err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["preflight", "error"]
    assert shell.left() == []


def test_a_job_that_fails_or_dies_leaves_nothing(shell: Workbench) -> None:
    failure = {"code": "not-finite", "title": "A layer\x1b[2J is not finite", "detail": "", "remedy": "Take another."}
    shell.script(quantize={"fail": failure})
    status, _, err = shell.run("Tiny-bf16", "-o", str(shell.out))
    assert status == 5
    assert "is not finite" in err
    assert "\x1b" not in err
    full = {"code": "storage", "title": "Cannot write", "detail": "No space left on device", "remedy": ""}
    shell.script(quantize={"fail": full})
    assert shell.run("Tiny-bf16", "-o", str(shell.out))[0] == 3
    shell.script(quantize={"crash": True})
    status, _, err = shell.run("Tiny-bf16", "-o", str(shell.out))
    assert status == 5
    assert "The engine ended in the middle of its work" in err
    assert shell.left() == []


def test_an_answer_that_makes_no_sense_is_a_warning(shell: Workbench) -> None:
    shell.script(quantize={"seconds": 0.0}, answers=[{"text": "rain " * 30}])
    status, out, _ = shell.run("Tiny-bf16", "-o", str(shell.out))
    assert status == 0
    assert "'rain' 30 times in 30 words" in out


def test_a_model_that_does_not_load_is_there_all_the_same(shell: Workbench) -> None:
    failure = {"code": "load", "title": "It does not load", "detail": "", "remedy": ""}
    shell.script(quantize={"seconds": 0.0}, load={"fail": failure})
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.out))
    assert status == 0
    assert "It does not load" in err
    assert out.splitlines()[-1] == str(shell.out)


def test_the_quality_is_measured_on_demand(shell: Workbench) -> None:
    status, out, err = shell.run("Tiny-bf16", "-o", str(shell.out), "--no-smoke", "--evaluate")
    assert status == 0, err
    assert "KL divergence" in out
    assert "| Perplexity |" in (shell.out / "README.md").read_text()


def test_ctrl_c_while_it_is_asked_keeps_the_model(shell: Workbench, terminal: Terminal) -> None:
    shell.hold.touch()
    terminal.wait_for("asking it a question")
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    assert "Stopped after the model was made" in terminal.screen_text
    assert shell.left() == ["made"]
    assert (shell.out / "README.md").is_file()


def test_a_terminal_shows_the_bar_and_the_layers(shell: Workbench, terminal: Terminal) -> None:
    shown = terminal.wait_for(lambda text: "quantizing layers: 2 of 4" in text and "layer   1 of 4" in text)
    assert "━" in shown
    shell.hold.touch()
    assert terminal.wait_exit() == 0
    shown = terminal.screen_text
    assert ANSWER in shown
    assert "layer   4 of 4" in shown
    assert "━" not in shown
    assert str(shell.out) in shown.replace("\n", "")


def test_ctrl_c_leaves_nothing(shell: Workbench, terminal: Terminal) -> None:
    terminal.wait_for("layer   1 of 4")
    engines = children(str(SCRIPTED_ENGINE), terminal.pid)
    assert engines
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    shown = "".join(terminal.screen_text.split())
    assert "Stopped.Nothinghalfmadewasleft.Aquantizationcannotberesumed:thenextonebeginsanew." in shown
    assert "Traceback" not in shown
    assert shell.left() == []
    assert not any(engine.is_running() for engine in engines)


def test_the_engine_of_a_job_makes_way_for_chats(terminal: Terminal) -> None:
    terminal.wait_for("layer   1 of 4")
    (engine,) = children(str(SCRIPTED_ENGINE), terminal.pid)
    assert os.getpriority(os.PRIO_PROCESS, engine.pid) > os.getpriority(os.PRIO_PROCESS, terminal.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_as_ctrl_c_does(shell: Workbench, terminal: Terminal, number: signal.Signals) -> None:
    terminal.wait_for("layer   1 of 4")
    terminal.kill(number)
    assert terminal.wait_exit() == 130
    assert shell.left() == []
