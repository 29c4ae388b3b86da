"""A command of the installed program over the scripted engine, on ordinary pipes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from client_rig import SCRIPTED_ENGINE
from terminal import program_env, quantchat_command

PATIENCE = 30.0


def scripted_engine_env(folder: Path) -> dict[str, str]:
    """What makes the program start scripted engines, whose script is `script.json` in `folder`."""
    return {
        "HF_HUB_CACHE": str(folder / "hub"),
        "QUANTCHAT_ENGINE_COMMAND": shlex.join([sys.executable, str(SCRIPTED_ENGINE)]),
        "QUANTCHAT_SCRIPT": str(folder / "script.json"),
    }


class Shell:
    """Runs one command of a fresh user with the models of `folder/models`; `common` are arguments of each call."""

    def __init__(self, folder: Path, command: str, *common: str, **script: object) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.environment = program_env(folder / "home", **scripted_engine_env(folder))
        self._command = (command, *common)
        self._usual_script = script
        self.script()

    def script(self, **script: object) -> None:
        """Let engines that start from now on behave in another way than usual."""
        (self.folder / "script.json").write_text(json.dumps(self._usual_script | script))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, *quantchat_command("--models-dir", str(self.models), *self._command, *arguments)]

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | env,
        )

    def run(self, *arguments: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        """Run to the end; exit status, stdout, stderr."""
        with self.start(*arguments, **env) as process:
            try:
                out, err = process.communicate(stdin, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err
