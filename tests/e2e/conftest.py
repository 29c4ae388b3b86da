"""The real program on the real demo model."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo_model import demo_model
from e2e.chat import HANG_SECONDS, Chat, chatting
from terminal import Terminal, program_env, quantchat_command

Start = Callable[..., Terminal]


@pytest.fixture(scope="session")
def model() -> Path:
    """The demo's 4-bit model, made once by the demo's own code and kept outside the checkout."""
    return demo_model()


@pytest.fixture(scope="module", autouse=True)
def _alone(model: Path) -> Iterator[None]:
    """Two real engines would fight for the cores."""
    with (model.parent / ".e2e.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh user's home with greedy sampling, so that answers are the same each time."""
    config = tmp_path / "home" / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text("automatic_titles = false\n[sampling]\ntemperature = 0.0\n")
    return tmp_path / "home"


@pytest.fixture
def start(home: Path, model: Path) -> Iterator[Start]:
    """Start quantchat on the home under a pty; everything is ended after the test."""
    terminals: list[Terminal] = []

    def run(*arguments: str, columns: int = 120, lines: int = 40, **env: str) -> Terminal:
        command = quantchat_command("--models-dir", str(model.parent), *arguments)
        terminal = Terminal(command, env=program_env(home, **env), columns=columns, lines=lines)
        terminals.append(terminal)
        return terminal

    yield run
    for terminal in terminals:
        terminal.close()


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Chat]:
    """One loaded program for all checks of a file, with the settings that the file calls `CONFIG`."""
    with chatting(tmp_path_factory.mktemp("shared") / "home", model, request.module.CONFIG) as chat:
        yield chat


@pytest.fixture
def chat(program: Chat) -> Iterator[Chat]:
    """The file's program on a small terminal with an empty session; afterwards all that was said is on disk."""
    program.resize(80, 24)
    program.new()
    yield program
    program.terminal.wait_until(program.is_settled, HANG_SECONDS)


def stored_sessions(home: Path) -> list[dict[str, object]]:
    """All sessions on disk, oldest first; each must parse."""
    return [json.loads(path.read_text()) for path in sorted((home / "data" / "sessions").glob("*.json"))]


def answers_of(session: dict[str, object]) -> list[dict[str, object]]:
    """The assistant's messages of a stored session."""
    messages = session["messages"]
    assert isinstance(messages, dict)
    return [message for message in messages.values() if message["role"] == "assistant"]
