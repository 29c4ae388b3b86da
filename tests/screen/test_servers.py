"""A server on a pseudo-terminal: the real program, its real engine process, and a server on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bad_server import Act, BadServer, chunk
from terminal import Terminal, program_env, quantchat_command

SIZES = [(80, 24), (200, 50)]
SECRET = "sk-very-secret-0815"
Start = Callable[..., Terminal]


@pytest.fixture
def server() -> Iterator[BadServer]:
    server = BadServer().start()
    yield server
    server.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    terminals: list[Terminal] = []

    def begin(*arguments: str, config: str = "", size: tuple[int, int] = (120, 40), **env: str) -> Terminal:
        home = tmp_path / "home"
        if config:
            (home / "config").mkdir(parents=True, exist_ok=True)
            (home / "config" / "config.toml").write_text(config)
        whole = program_env(home, HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / "hub"), **env)
        command = quantchat_command(*arguments)
        terminals.append(Terminal(command, env=whole, columns=size[0], lines=size[1], cwd=tmp_path))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal.close()


def config_of(server: BadServer) -> str:
    return f'[servers.box]\nurl = "{server.url}"\n'


def quit_(terminal: Terminal) -> None:
    """Leave; nothing that was started stays."""
    children = psutil.Process(terminal.pid).children(recursive=True)
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0
    assert not [child for child in children if child.is_running()]


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_a_server_answers(server: BadServer, start: Start, size: tuple[int, int]) -> None:
    terminal = start("--model", "server:box/tiny", config=config_of(server), size=size)
    host = server.url.removeprefix("http://").removesuffix("/v1")
    terminal.wait_for(lambda text: host in text.splitlines()[-1])
    terminal.type("hi\r")
    terminal.wait_for("Hello there, my friend.")
    terminal.wait_for(lambda text: "tok/s" in text.splitlines()[-1] or "ctx" in text.splitlines()[-1])
    body = server.asked()[-1].body
    assert (body["model"], body["messages"][-1]["content"]) == ("tiny", "hi")
    quit_(terminal)


@pytest.mark.parametrize("size", SIZES)
def test_esc_stops_the_work_of_the_server(server: BadServer, start: Start, size: tuple[int, int]) -> None:
    terminal = start("--model", "server:box/tiny", config=config_of(server), size=size)
    terminal.wait_for(lambda text: "127.0.0.1" in text.splitlines()[-1])
    stall = server.will(Act(pieces=[chunk(role="assistant"), chunk("Once upon")], stall=True))
    terminal.type("tell\r")
    terminal.wait_for("Once upon")
    assert stall.reached.is_set()
    terminal.press("esc")
    terminal.wait_for("stopped")
    terminal.wait_until(lambda: server.asked()[-1].gone.is_set())
    assert server.running == 0
    quit_(terminal)


def test_a_server_is_added_and_its_key_stays_in_its_file(server: BadServer, start: Start, tmp_path: Path) -> None:
    server.key = SECRET
    terminal = start(size=(80, 24))
    terminal.wait_for("Ask something")
    terminal.type(f"/server box {server.url}\r")
    terminal.wait_for("Add a server")
    terminal.wait_for(lambda text: "key" in text.split("written here")[-1] and "Ctrl+K" in text)
    terminal.press("tab", "tab", "tab")
    terminal.paste(SECRET + "\n")
    terminal.press("enter")
    terminal.wait_for("1 model")
    terminal.press("enter")
    terminal.wait_for(lambda text: "is kept" in text and "Add a server" not in text)
    terminal.type("/model tiny\r")
    terminal.wait_for(lambda text: "127.0.0.1" in text.splitlines()[-1])
    terminal.type("hi\r")
    terminal.wait_for("Hello there, my friend.")
    assert server.asked()[-1].headers["authorization"] == f"Bearer {SECRET}"
    # A wrong key is told by the server, with the key in its words.
    server.key = "another"
    terminal.type("again\r")
    terminal.wait_for(lambda text: "401" in text or "key" in text.lower().split("again")[-1])
    terminal.type("/export said.json\r")
    terminal.wait_until(lambda: (tmp_path / "said.json").exists())
    quit_(terminal)
    files = written(tmp_path)
    assert b"server:box/tiny" in files["said.json"]
    assert [name for name, data in files.items() if SECRET.encode() in data] == ["home/config/keys.toml"]
    assert SECRET.encode() not in terminal.raw
    assert os.stat(tmp_path / "home" / "config" / "keys.toml").st_mode & 0o777 == 0o600


def test_a_server_that_goes_away_comes_back_by_itself(server: BadServer, start: Start) -> None:
    terminal = start("--model", "server:box/tiny", config=config_of(server))
    terminal.wait_for(lambda text: "127.0.0.1" in text.splitlines()[-1])
    server.sleep()
    terminal.wait_for(lambda text: "reconnecting" in text.splitlines()[-1])
    terminal.wait_for("box does not answer")
    server.wake()
    terminal.wait_for(lambda text: "reconnecting" not in text.splitlines()[-1])
    terminal.type("hi\r")
    terminal.wait_for("Hello there, my friend.")
    quit_(terminal)


def test_metrics_of_the_server_stand_in_the_status_bar(server: BadServer, start: Start) -> None:
    server.pages["/metrics"] = (
        b"vllm:num_requests_running 3.0\nvllm:num_requests_waiting 2.0\nvllm:kv_cache_usage_perc 0.25\n"
    )
    terminal = start("--model", "server:box/tiny", config=config_of(server))
    terminal.wait_for(lambda text: "3 running  2 waiting" in text.splitlines()[-1] and "25%" in text.splitlines()[-1])
    quit_(terminal)


def test_a_model_that_the_server_does_not_have_is_explained(server: BadServer, start: Start) -> None:
    terminal = start("--model", "server:box/absent", config=config_of(server))
    terminal.wait_for(lambda text: "absent" in text and "tiny" in text)
    terminal.press("esc")
    quit_(terminal)
