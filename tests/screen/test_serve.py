"""Serving in a pseudo-terminal: the command, the start, the screen on it, the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripted_run import SIZES
from serving_rig import Stub, until
from terminal import Terminal


class Served(Stub):
    """The stub, and terminals that serve with it."""

    terminals: list[Terminal]

    def on_terminal(self, *arguments: str, columns: int = 100, lines: int = 30, **env: str) -> Terminal:
        terminal = Terminal(self.command(*arguments), env=self.env | env, columns=columns, lines=lines)
        self.terminals.append(terminal)
        return terminal


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    stub = Served(tmp_path)
    stub.terminals = []
    yield stub
    for terminal in stub.terminals:
        terminal.close()
    stub.close()


def is_loaded(text: str) -> bool:
    """Whether the status bar names a server."""
    return "127.0.0.1:" in text.splitlines()[-1]


def texts_below(folder: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def opened(served: Served, size: tuple[int, int]) -> Terminal:
    """A screen on a server that was watched while it started, and has answered."""
    terminal = served.on_terminal(columns=size[0], lines=size[1])
    terminal.wait_for("vllm serve ")
    terminal.wait_for("loading weights")
    served.go_on()
    terminal.wait_for(is_loaded)
    terminal.type("hello\r")
    terminal.wait_for("The stub says: hello")
    return terminal


def test_the_screen_opens_on_the_server(served: Served) -> None:
    served.script(worker="session", hold="50% Completed")
    terminal = opened(served, SIZES[0])
    terminal.press("ctrl+q")
    assert terminal.wait_exit(25.0) == 0
    assert served.nothing_runs()
    # Neither the server nor its key outlives the run.
    assert served.environment["VLLM_API_KEY"] not in texts_below(served.home)
    config = served.home / "config" / "config.toml"
    assert not config.exists() or "serve" not in config.read_text()


def test_a_dropped_line_ends_the_server(served: Served) -> None:
    terminal = served.on_terminal()
    terminal.wait_for(is_loaded)
    terminal.hang_up()
    until(served.nothing_runs)


def test_ctrl_c_while_it_starts_leaves_nothing(served: Served) -> None:
    served.script(hold="LLM engine")
    terminal = served.on_terminal()
    terminal.wait_for("starting the engine")
    terminal.press("ctrl+c")
    assert terminal.wait_exit() == 130
    assert served.nothing_runs()
    assert "Stopped" in terminal.screen_text


def test_a_server_that_dies_under_the_screen_is_explained_there_and_after_it(served: Served) -> None:
    """The screen said only that nothing listens, and to look at the settings."""
    served.script(hold="50% Completed")
    terminal = opened(served, SIZES[1])
    os.kill(served.pids()[0], signal.SIGKILL)
    terminal.wait_for("The server ended by itself")
    terminal.wait_for("SIGKILL")
    until(served.nothing_runs)
    terminal.press("esc")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 5
    assert "SIGKILL" in terminal.screen_text


@pytest.mark.parametrize("answer", ["n\r", "\x04"])
def test_the_small_server_is_offered_where_vllm_is_not(served: Served, tmp_path: Path, answer: str) -> None:
    (served.bin / "vllm").unlink()
    terminal = served.on_terminal(PATH=str(tmp_path / "empty"))
    terminal.wait_for("vLLM is not installed")
    terminal.wait_for("Serve with `transformers serve` now?")
    terminal.type(answer)
    assert terminal.wait_exit() == 130
    assert served.pids() == []


def test_machines_are_joined_first(served: Served) -> None:
    terminal = served.on_terminal("--nodes", "2")
    terminal.wait_for("Enter starts it")
    assert b"ray start --head" in terminal.raw
    assert b"--distributed-executor-backend ray" in terminal.raw
    terminal.type("\x04")
    assert terminal.wait_exit() == 130
    assert served.pids() == []
