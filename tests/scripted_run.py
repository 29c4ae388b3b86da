"""The installed program over the scripted engine, in a bare terminal or in tmux: everything is real but the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from scripted_shell import scripted_engine_env
from terminal import Terminal, program_env, quantchat_command
from tmux import Tmux
from unit.catalog.model_folders import make_gptq

SCRIPTED_ENGINE = Path(__file__).resolve().parent / "scripted_engine.py"
MODEL = "alpha-GPTQ"

Inside = Literal["bare", "tmux"]
INSIDE: tuple[Inside, ...] = ("bare", "tmux")
SIZES = [(80, 24), (200, 50)]


class ScriptedHome:
    """A fresh user's home below `folder`, with two model folders, and the programs that were started on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.models = folder / "models"
        self._terminals: list[Terminal] = []

    def start(
        self,
        *arguments: str,
        answers: list[dict[str, object]] | None = None,
        script: dict[str, object] | None = None,
        inside: Inside = "bare",
        columns: int = 120,
        lines: int = 40,
        config: str = "",
        cwd: Path | None = None,
        options: tuple[str, ...] = (),
        **env: str,
    ) -> Terminal:
        """Start the program; `options` are commands for tmux, `env` wins over a fresh user's environment."""
        for name in (MODEL, "beta-GPTQ"):
            if not (self.models / name).exists():
                make_gptq(self.models / name)
        (self.folder / "script.json").write_text(json.dumps({"answers": answers or [], **(script or {})}))
        if config:
            (self.home / "config").mkdir(parents=True, exist_ok=True)
            (self.home / "config" / "config.toml").write_text(config)
        command = quantchat_command("--models-dir", str(self.models), *arguments)
        whole = program_env(self.home, **scripted_engine_env(self.folder), **env)
        if inside == "tmux":
            terminal: Terminal = Tmux(command, env=whole, columns=columns, lines=lines, cwd=cwd, options=options)
        else:
            terminal = Terminal(command, env=whole, columns=columns, lines=lines, cwd=cwd)
        self._terminals.append(terminal)
        return terminal

    def start_loaded(self, *arguments: str, **how: object) -> Terminal:
        """Start the program with its model loaded."""
        terminal = self.start("--model", MODEL, *arguments, **how)  # type: ignore[arg-type]
        terminal.wait_for(lambda text: "cpu" in text.splitlines()[-1])
        return terminal

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()


Start = Callable[..., Terminal]


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedHome]:
    """A home on which the program can be started any number of times; all of them end with the test."""
    home = ScriptedHome(tmp_path)
    yield home
    home.close()


@pytest.fixture
def scripted_start(scripted: ScriptedHome) -> Start:
    """Start the program with a model loaded."""
    return scripted.start_loaded
