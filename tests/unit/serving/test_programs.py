"""Where the programs that serve are found, and the ports that they may listen on."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from quantchat.errors import ServeError, UsageError
from quantchat.services.serving import ports, programs
from quantchat.services.serving.programs import find_program


def test_the_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    assert find_program("vllm") == str(program)
    assert find_program("vllm", str(program)) == str(program)
    with pytest.raises(UsageError, match="no program"):
        find_program("vllm", str(tmp_path / "nothing"))


def test_how_to_get_vllm_and_what_runs_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServeError) as caught:
        find_program("vllm")
    for word in ("pip install vllm", "--program", "--backend transformers"):
        assert word in str(caught.value)


def test_the_exact_command_for_the_packages_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ServeError) as caught:
        find_program("transformers")
    assert "needs uvicorn" in str(caught.value)
    assert "pip install 'transformers[serving]'" in str(caught.value)


def test_a_taken_port_names_its_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UsageError, match=rf"Port {port} is taken by process {os.getpid()}"):
            ports.require_free("127.0.0.1", port)
        assert ports.free_port("127.0.0.1", port) != port
    ports.require_free("127.0.0.1", port)
    assert ports.free_port("127.0.0.1", port) == port


def test_an_address_that_is_not_here() -> None:
    with pytest.raises(UsageError, match="Nothing can listen"):
        ports.free_port("203.0.113.9")


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_where_it_is_reached(host: str, reached: str) -> None:
    assert ports.reached_at(host) == reached
