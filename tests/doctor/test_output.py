"""What is printed, and where: closed streams, plain terminals, full disks, narrow screens; nothing is changed."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
import pytest
from wcwidth import wcswidth

from doctor.rig import RUN, clean_env, doctor, only
from quantchat.services.doctor.findings import Report
from terminal import Terminal
from unit.catalog.model_folders import make_gptq

DOCTOR = [sys.executable, "-P", "-c", RUN, "doctor"]
QUICK = only("python", "disks", "environment", "settings")


def shell(redirections: str, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run with streams as a shell leaves them."""
    command = f"{shlex.join([*DOCTOR, *QUICK, *words])} {redirections}"
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=60)


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "</dev/null", "| cat"])
def test_streams_that_are_closed(env: dict[str, str], redirections: str) -> None:
    done = shell(redirections, env)
    assert done.returncode == 0
    assert done.stderr == b""
    assert (b"Python" in done.stdout) is (">&- " not in f"{redirections} ".replace("2>&-", ""))


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_report_that_does_not_fit_on_the_disk(env: dict[str, str], words: Sequence[str]) -> None:
    done = shell("> /dev/full", env, *words)
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("quantchat: The findings could not be written. No space left on device.")


def test_characters_that_a_stream_does_not_have(env: dict[str, str]) -> None:
    done = shell("", env | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.decode("ascii").startswith("+ Python ")


def test_names_that_are_no_text(env: dict[str, str], tmp_path: Path) -> None:
    done = shell("", env, "--json", "--only", "folders", "--models-dir", os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(done.stdout, type=Report)
    assert any(finding.found.startswith(f"{tmp_path}/? is not there") for finding in report.findings)


def test_without_a_home(env: dict[str, str]) -> None:
    code = f"import os; os.setuid(54321); {RUN}" if os.geteuid() == 0 else ""
    if not code:
        pytest.skip("only root can become a user that nobody knows")
    unknown = {name: value for name, value in env.items() if name not in ("HOME", "QUANTCHAT_HOME")}
    preloaded = "import asyncio, quantchat.cli.stoppable, quantchat.services.doctor.checks"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{preloaded}; {code}", "doctor", "--json", *only("environment", "settings")],
        env=unknown,
        capture_output=True,
        timeout=60,
    )
    assert done.stderr == b""
    found = {finding.id: finding for finding in msgspec.json.decode(done.stdout, type=Report).findings}
    assert found["environment.HOME"].level == "red"
    fix = ["sh", "-c", f'{found["environment.HOME"].fix}; test -d "$HOME"']
    assert subprocess.run(fix, env=unknown, check=False).returncode == 0
    os.rmdir(f"/tmp/home-{os.geteuid()}")


def test_settings_that_cannot_be_understood(tmp_path: Path) -> None:
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text('theme = \nmodels_dirs = ["~nobody-at-all/models"]\n')
    found = doctor(*only("settings", "folders"), env=clean_env(tmp_path))["settings"]
    assert found.level == "yellow"
    assert "line 1" in found.found
    assert subprocess.run(["sh", "-c", found.fix], env={**os.environ, "EDITOR": "test -f"}).returncode == 0


def lines_on(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in terminal.screen_text.splitlines() if line.strip()]


@pytest.mark.parametrize("columns", [40, 80])
def test_words_fit_the_terminal(env: dict[str, str], columns: int) -> None:
    words = [*DOCTOR, *only("python", "packages", "disks", "environment", "terminal"), "--models-dir", "/gone"]
    terminal = Terminal(words, env=env | {"PYTHONPATH": "/日本語" * 30}, columns=columns, lines=200)
    try:
        terminal.wait_exit()
    finally:
        terminal.close()
    found = lines_on(terminal)
    assert found[0].startswith("✓ Python")
    assert "日本語/日本語" in "".join(found)
    # The terminal would have broken a longer line itself, in the middle of a word and without an indentation.
    assert [line for line in found if line[0] not in "✓!✗0123456789 "] == []
    assert max(map(wcswidth, found)) <= columns


def test_a_terminal_that_can_do_nothing(env: dict[str, str]) -> None:
    terminal = Terminal([*DOCTOR, *QUICK], env=env | {"TERM": "dumb"})
    try:
        terminal.wait_exit()
        terminal.pump()
    finally:
        terminal.close()
    assert b"\x1b" not in terminal.raw


@pytest.mark.engine
def test_quick_findings_do_not_wait_and_ctrl_c_leaves_nothing(env: dict[str, str]) -> None:
    terminal = Terminal(DOCTOR, env=env, columns=80, lines=200)
    try:
        terminal.wait_for(lambda text: "Environment" in text and "Looking at imports" in text)
        children = psutil.Process(terminal.pid).children(recursive=True)
        assert any("quantchat.engine.probe" in child.cmdline() for child in children)
        terminal.write(b"\x03")
        assert terminal.wait_exit() == 130
        assert psutil.wait_procs(children, timeout=20)[1] == []
        terminal.wait_for(lambda text: "Nothing was changed" in text)
    finally:
        terminal.close()


def state(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Names, with times and sizes of files: libraries try whether folders of temporary files can be written to."""
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {name: None if stat.S_ISDIR(of.st_mode) else (of.st_mtime_ns, of.st_size) for name, of in found.items()}


@pytest.mark.engine
def test_nothing_is_changed(tmp_path: Path) -> None:
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    make_gptq(tmp_path / "models" / "one")
    before = state(tmp_path)
    env = clean_env(tmp_path / "home", TMPDIR=str(tmp_path / "tmp"))
    del env["QUANTCHAT_HOME"]
    seen = doctor("--models-dir", str(tmp_path / "models"), env=env)
    assert seen["import"].level == "green"
    assert "import.kernels" not in seen
    assert state(tmp_path) == before
