"""The stub of vLLM on PATH, for a fresh user with one model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from processes import is_running
from quantchat.cli import main
from terminal import program_env, quantchat_command
from unit.catalog.model_folders import make_gptq

STUB = Path(__file__).with_name("stub_vllm.py")
MODEL = "alpha-GPTQ"
PATIENCE = 20.0
KILLED_FIRST = 8.0
"""Seconds; less than a server gets to end by itself."""


class Stub:
    """A home below `folder`, and a program called `vllm` that does what `script` says."""

    def __init__(self, folder: Path, **script: object) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        self._servings: list[Serving] = []
        make_gptq(folder / "models" / MODEL)
        self.install("vllm")
        self.script(**script)

    def install(self, name: str) -> Path:
        """Put the stub where programs are, under a name."""
        self.bin.mkdir(exist_ok=True)
        program = self.bin / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
        program.chmod(0o755)
        return program

    def script(self, **script: object) -> None:
        """Let servers that start from now on do this."""
        (self.folder / "stub.json").write_text(json.dumps(script))

    @property
    def env(self) -> dict[str, str]:
        """The environment of the user, with the stub first on PATH."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        own = {"HF_HUB_CACHE": str(self.folder / "hub"), "STUB_VLLM": str(self.folder / "stub.json"), "PATH": path}
        return {name: value for name, value in program_env(self.home, **own).items() if name != "VLLM_API_KEY"}

    def _arguments(self, *arguments: str) -> list[str]:
        return ["serve", MODEL, "--models-dir", str(self.folder / "models"), *arguments]

    def command(self, *arguments: str) -> list[str]:
        """The command line of `quantchat serve`."""
        return quantchat_command(*self._arguments(*arguments))

    def invoke(self, *arguments: str, **env: str) -> Result:
        """Run the command in this process, without a terminal; for what starts no server."""
        absent = {"VLLM_API_KEY": None}
        return CliRunner().invoke(main, self._arguments(*arguments), env=absent | self.env | env)

    def start(self, *arguments: str, **env: str) -> Serving:
        """Serve on pipes, without the screen, told in JSON."""
        process = subprocess.Popen(
            self.command("--no-screen", "--json", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env | env,
        )
        self._servings.append(Serving(process))
        return self._servings[-1]

    def go_on(self) -> None:
        """Let a server go on that was told to hold."""
        (self.folder / "go").touch()

    def close(self) -> None:
        """End what a test that failed has left."""
        for serving in self._servings:
            serving.close()
        for pid in filter(is_running, self.pids()):
            os.kill(pid, signal.SIGKILL)

    def option(self, name: str) -> str | None:
        """The value that the last server was given for an option."""
        words = json.loads((self.folder / "argv.json").read_text())
        return words[words.index(name) + 1] if name in words else None

    @property
    def environment(self) -> dict[str, str]:
        """What the last server found set."""
        found: dict[str, str] = json.loads((self.folder / "environment.json").read_text())
        return found

    def pids(self) -> list[int]:
        """The last server and its worker, as far as they were started."""
        files = (self.folder / "server.pid", self.folder / "worker.pid")
        return [int(file.read_text()) for file in files if file.exists() and file.read_text()]

    def nothing_runs(self) -> bool:
        """Whether nothing is left of the last server."""
        return self.pids() != [] and not any(map(is_running, self.pids()))


class Serving:
    """A running `quantchat serve --no-screen --json`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, object]] = []

    def event(self, name: str) -> dict[str, object]:
        """Read on until an event comes; return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == name:
                return self.events[-1]
        raise AssertionError(f"no {name} in {self.events}; it said: {self.end()}")

    def close(self) -> None:
        """End it, and let its pipes go."""
        self.process.kill()
        with self.process:
            self.process.wait(PATIENCE)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and stderr."""
        out, err = self.process.communicate(timeout=PATIENCE)
        self.events += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode, err


def until(test: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
