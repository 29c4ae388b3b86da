"""Servers that others wrote, started on loopback with the real small model."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

PATIENCE = 120.0


class RealServer:
    """One server process; `model` is what it calls its model."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, model: str) -> None:
        self.process, self.url, self.model = process, url, model
        self.kind = ""

    def computes(self) -> bool:
        """Whether it used more than a third of a core in the last moment."""
        process = psutil.Process(self.process.pid)
        before, begun = _cpu(process), time.monotonic()
        time.sleep(0.3)
        return (_cpu(process) - before) / (time.monotonic() - begun) > 1 / 3


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def running(command: list[str], port: int, model: str, log: Path, **env: str) -> Iterator[RealServer]:
    """Start a server, wait until it listens, end it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | env)
    try:
        _wait(process, port, log)
        yield RealServer(process, f"http://127.0.0.1:{port}/v1", model)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=PATIENCE).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def transformers_serve(folder: Path, scratch: Path) -> Iterator[RealServer]:
    port = free_port()
    program = Path(sys.executable).parent / "transformers"
    command = [str(program), "serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    # No hub cache: then it cannot even list its models.
    with running(
        command,
        port,
        str(folder),
        scratch / "transformers.log",
        HF_HOME=str(scratch),
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
    ) as one:
        yield one


@contextlib.contextmanager
def llama_server(gguf: Path, scratch: Path) -> Iterator[RealServer]:
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", "smol"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--n_threads", "1"]
    with running(command, port, "smol", scratch / "llama.log") as one:
        yield one
