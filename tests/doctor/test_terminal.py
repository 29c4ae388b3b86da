"""Terminals and tmux: what the doctor says of the defaults, and that its commands make it content."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from doctor.rig import RUN, clean_env, only
from quantchat.services.doctor.findings import Finding, Report
from terminal import Terminal
from tmux import Tmux

Examine = Callable[..., dict[str, Finding]]
GOOD = ("set -s escape-time 10", "set -s set-clipboard on", "set -s default-terminal tmux-256color")
RICH = "set -as terminal-features ,xterm-256color:RGB"


def command(out: Path, *checks: str) -> list[str]:
    """Run the doctor with a terminal as its standard input and error, and its findings in a file."""
    words = [sys.executable, "-P", "-c", RUN, "doctor", "--json", *only(*checks)]
    return ["sh", "-c", f"{shlex.join(words)} > {shlex.quote(f'{out}.part')}; mv {out}.part {out}"]


def read(out: Path) -> dict[str, Finding]:
    report = msgspec.json.decode(out.read_bytes(), type=Report)
    return {finding.id: finding for finding in report.findings}


@pytest.fixture
def in_tmux(tmp_path: Path) -> Iterator[Callable[..., Tmux]]:
    servers: list[Tmux] = []

    def start(*options: str, **more: str) -> Tmux:
        env = clean_env(tmp_path, **more)
        del env["COLORTERM"]
        servers.append(Tmux(["sh"], env=env, options=options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def findings(server: Tmux, folder: Path) -> dict[str, Finding]:
    """Examine in the pane's own shell."""
    out = folder / f"out-{len(list(folder.glob('out-*')))}"
    server.type(shlex.join(command(out, "terminal", "tmux")) + "\r")
    server.wait_until(out.exists)
    return read(out)


def test_tmux_as_it_comes(in_tmux: Callable[..., Tmux], tmp_path: Path) -> None:
    found = findings(in_tmux("set -s default-terminal screen"), tmp_path)
    assert found["tmux"].level == "green"
    assert "allow-passthrough" in found["tmux"].found
    assert found["tmux.escape-time"].level == "yellow"
    assert "500 ms" in found["tmux.escape-time"].found
    assert found["tmux.set-clipboard"].level == "green", "quantchat's own way needs no more than the default"
    assert found["tmux.default-terminal"].level == "yellow"
    assert found["tmux.colours"].level == "yellow"
    assert "clipboard" not in found, "the terminal behind tmux is tmux's business"


def test_tmux_with_good_options(in_tmux: Callable[..., Tmux], tmp_path: Path) -> None:
    found = findings(in_tmux(*GOOD, RICH), tmp_path)
    assert levels(found) == {"green"}
    assert found["tmux.colours"].found == "16 million colours"


def test_tmux_that_keeps_copies_to_itself(in_tmux: Callable[..., Tmux], tmp_path: Path) -> None:
    found = findings(in_tmux("set -s set-clipboard off"), tmp_path)
    assert found["tmux.set-clipboard"].level == "yellow"
    assert found["tmux.set-clipboard"].fix.splitlines()[0] == "tmux set -s set-clipboard on"


def test_the_commands_mend_tmux_now_and_for_the_next_server(in_tmux: Callable[..., Tmux], tmp_path: Path) -> None:
    server = in_tmux("set -s set-clipboard off", "set -s default-terminal screen")
    wrong = [finding for finding in findings(server, tmp_path).values() if finding.id.startswith("tmux.")]
    assert len([finding for finding in wrong if finding.level == "yellow"]) == 4
    # As `tmux` alone means the server of this pane inside of it, the commands are run as they are.
    for line in sorted((line for finding in wrong for line in finding.fix.splitlines()), key=is_detach):
        server.type(f"{line}\r")
    clients = server.tmux("list-clients", "-F", "#{client_pid}")
    server.type(f"touch {tmp_path}/mended\r")
    server.wait_until((tmp_path / "mended").exists)
    assert server.tmux("list-clients", "-F", "#{client_pid}") == clients, "the same terminal, attached again"
    assert levels(findings(server, tmp_path)) == {"green"}
    assert levels(findings(in_tmux(f"source-file {tmp_path}/.tmux.conf"), tmp_path)) == {"green"}


def is_detach(line: str) -> bool:
    return line.startswith("tmux detach")


def test_a_server_that_does_not_answer(in_tmux: Callable[..., Tmux], tmp_path: Path) -> None:
    server = in_tmux()
    socket, pid = server.tmux("display-message", "-p", "#{socket_path} #{pid}").split()
    os.kill(int(pid), signal.SIGSTOP)
    try:
        found = on_terminal(tmp_path, checks=("tmux",), TMUX=f"{socket},{pid},0")
    finally:
        os.kill(int(pid), signal.SIGCONT)
    assert found["tmux"].level == "yellow"
    assert "does not answer" in found["tmux"].found


def levels(found: dict[str, Finding]) -> set[str]:
    return {finding.level for name, finding in found.items() if name.startswith("tmux")}


def on_terminal(
    tmp_path: Path, absent: Sequence[str] = (), checks: Sequence[str] = ("terminal",), **more: str
) -> dict[str, Finding]:
    env = {name: value for name, value in clean_env(tmp_path, **more).items() if name not in absent}
    out = tmp_path / "out"
    terminal = Terminal(command(out, *checks), env=env)
    try:
        terminal.wait_exit()
    finally:
        terminal.close()
    return read(out)


def test_a_modern_terminal(tmp_path: Path) -> None:
    found = on_terminal(tmp_path, TERM="xterm-kitty")
    assert {finding.level for finding in found.values()} == {"green"}
    assert "known to take them" in found["clipboard"].found


@pytest.mark.parametrize(
    ("environment", "level", "fix"),
    [
        ({"TERM": "dumb"}, "red", "export TERM=xterm-256color"),
        ({"TERM": "xterm", "COLORTERM": ""}, "yellow", "export TERM=xterm-256color"),
        ({"TERM": "linux", "COLORTERM": ""}, "yellow", ""),
        ({"COLORTERM": "", "SSH_CONNECTION": "10.0.0.2 1 10.0.0.1 22"}, "yellow", "export COLORTERM=truecolor"),
        ({"COLORTERM": ""}, "green", ""),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "green", ""),
    ],
)
def test_colours(tmp_path: Path, environment: dict[str, str], level: str, fix: str) -> None:
    found = on_terminal(tmp_path, **environment)["terminal"]
    assert (found.level, found.fix) == (level, fix)


def test_a_line_that_may_drop(tmp_path: Path) -> None:
    found = on_terminal(tmp_path, SSH_CONNECTION="10.0.0.2 1 10.0.0.1 22")["ssh"]
    assert found.level == "yellow"
    assert found.fix == "tmux new -A -s chat"


def test_a_locale_that_is_not_utf8(tmp_path: Path) -> None:
    found = on_terminal(tmp_path, LANG="C", LC_ALL="", LC_CTYPE="")["locale"]
    assert (found.level, found.fix) == ("yellow", "export LC_ALL=C.UTF-8")
