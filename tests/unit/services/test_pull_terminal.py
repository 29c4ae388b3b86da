"""`quantchat pull` where people run it: on 80 columns, on a line that drops, in a pipe, before other commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hub_server import Fault, Repository
from pull_rig import NAME, WEIGHTS, PullRig, rig, until
from terminal import Terminal, program_env

__all__ = ["rig"]
HALF = 500_000


class Started:
    """The command on a terminal; its download stalls at half of the weights."""

    def __init__(self, rig: PullRig, *arguments: str) -> None:
        self.rig = rig
        self.stall = rig.hub.fault(WEIGHTS, Fault(), Fault(stall_after=HALF)) and rig.hub.faults[WEIGHTS][-1]
        env = program_env(rig.home, **{name: rig.env[name] for name in rig.env if name.startswith(("HF_", "NO_PROXY"))})
        self.terminal = Terminal(rig.command(NAME, *arguments), env=env, columns=80, lines=24)

    def answer(self) -> None:
        self.terminal.wait_for("Download 1.0 MiB? [Y/n]")
        self.terminal.type("y\r")

    def half(self) -> psutil.Process:
        """Wait for half of the weights; return the download process."""
        self.terminal.wait_until(lambda: self.rig.partial.exists() and self.rig.partial.stat().st_size == HALF)
        (child,) = psutil.Process(self.terminal.pid).children()
        return child


@pytest.fixture
def started(rig: PullRig) -> Iterator[Started]:
    started = Started(rig)
    yield started
    started.terminal.close()


def test_bars_fit_into_80_columns_and_go_away(started: Started) -> None:
    started.answer()
    child = started.half()
    terminal = started.terminal
    text = terminal.wait_for(lambda text: "KiB of 1.0 MiB" in text and "━ 1.0 MiB" in text)
    bars = text.split("[Y/n]")[1].splitlines()[1:]
    assert [line.split()[0] for line in bars if line] == ["all", "model.safetensors"], bars
    started.stall.released.set()
    assert terminal.wait_exit() == 0
    assert "━" not in terminal.screen_text
    assert started.rig.snapshot.name in terminal.screen_text.replace("\n", "")
    assert not child.is_running()
    started.rig.whole()


def test_ctrl_c_stops_and_says_how_to_go_on(started: Started) -> None:
    started.answer()
    child = started.half()
    started.terminal.press("ctrl+c")
    assert started.terminal.wait_exit() == 130
    text = started.terminal.screen_text
    assert "Stopped. What has arrived is kept." in text
    assert "Traceback" not in text
    assert not child.is_running()
    assert started.rig.partial.stat().st_size == HALF


@pytest.mark.parametrize("key", ["\x03", "\x04", "n\r"], ids=["ctrl+c", "ctrl+d", "n"])
def test_the_question_can_be_declined(started: Started, key: str) -> None:
    started.terminal.wait_for("[Y/n]")
    started.terminal.type(key)
    assert started.terminal.wait_exit() == 130
    assert "quantchat: Nothing was downloaded." in started.terminal.screen_text
    assert not started.rig.folder.exists()


def test_a_line_that_drops_ends_the_download_and_keeps_what_has_arrived(started: Started) -> None:
    started.answer()
    child = started.half()
    started.terminal.hang_up()
    until(lambda: started.terminal.poll() is not None, "the end of the command")
    until(lambda: not child.is_running(), "the end of its child")
    assert started.rig.partial.stat().st_size == HALF


def test_a_pipe_that_is_closed_ends_the_download(rig: PullRig) -> None:
    rig.hub.fault(WEIGHTS, Fault(), Fault(bytes_per_second=100_000))
    process = rig.start(NAME, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "plan"
    process.stdout.close()
    assert process.wait(timeout=30) != 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stdout = None


def test_where_nobody_watches_some_lines_tell_how_far_it_is(rig: PullRig) -> None:
    rig.hub.fault(WEIGHTS, Fault(), Fault(bytes_per_second=2_000_000))
    done = rig.run(NAME, "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == str(rig.snapshot)
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 9, lines
    shares = [int(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares)
    assert "of 1.0 MiB" in lines[0]


def test_a_repository_of_gguf_files_alone_wants_a_choice(rig: PullRig) -> None:
    files = {"README.md": b"#", "x.Q4_K_M.gguf": b"GGUF", "x.Q8_0.gguf": b"GGUF"}
    rig.hub.repositories["acme/x-GGUF"] = Repository(files)
    done = rig.run("acme/x-GGUF", "--yes")
    assert done.returncode == 6
    assert "--include '*Q4_K_M.gguf'" in done.stderr
    assert not list(rig.cache.glob("models--acme--x-GGUF"))
    assert rig.run("acme/x-GGUF", "--yes", "--include", "*Q8_0*").returncode == 0


def test_what_was_pulled_is_listed_and_removed(rig: PullRig) -> None:
    def models(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*rig.command()[:2], "models", *arguments]
        return subprocess.run(command, env=rig.env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert rig.run(NAME, "--yes").returncode == 0
    (listed,) = [model for model in json.loads(models("--json").stdout) if model["name"] == NAME]
    assert Path(listed["path"]) == rig.snapshot
    assert not listed.get("problems"), listed
    removed = models("rm", NAME, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert not rig.folder.exists()
    assert NAME not in models("--json").stdout
