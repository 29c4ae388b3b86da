"""The command line on an ordinary pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from quantchat import cli
from unit.catalog.model_folders import make_gptq

CHECKOUT = Path(__file__).resolve().parents[2]
INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from {module} import {function}
{function}()
"""


def quantchat(home: Path, *arguments: str, to: str = "") -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).parent / "quantchat"
    environment = os.environ | {"QUANTCHAT_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    with open(to or os.devnull, "w") as out:
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            stdout=out if to else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )


def test_models_lists_folders_and_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    make_gptq(tmp_path / "models" / "evil\x1b]0;owned\x07")
    done = quantchat(tmp_path, "models", "--models-dir", str(tmp_path / "models"))
    assert done.returncode == 0
    assert "GPTQ 4b" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_words_that_do_not_fit_on_the_disk(tmp_path: Path) -> None:
    """Was a traceback."""
    make_gptq(tmp_path / "model")
    done = quantchat(tmp_path, "serve", str(tmp_path / "model"), "--print", to="/dev/full")
    assert done.returncode == 3
    assert done.stderr.endswith("quantchat: The words could not be written. No space left on device.\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--model", "x")])
def test_without_a_terminal_it_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = quantchat(tmp_path, *arguments)
    assert done.returncode != 0
    assert "terminal" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_kernel_lists_the_right_ones(tmp_path: Path) -> None:
    done = quantchat(tmp_path, "--kernel", "marlln")
    assert done.returncode == 2
    assert "'marlln' is no kernel" in done.stderr
    for name in ("marlin", "exllama_v2", "torch_aten"):
        assert name in done.stderr


@pytest.mark.parametrize("name", ["marlin", "gptq_marlin"])
def test_a_right_kernel_is_taken(tmp_path: Path, name: str) -> None:
    done = quantchat(tmp_path, "--kernel", name, "--device", "cpu")
    assert "is no kernel" not in done.stderr
    assert "terminal" in done.stderr


def test_ctrl_c_while_the_program_is_imported_shows_nothing() -> None:
    """Was a traceback."""
    script = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]["quantchat"]
    module, _, function = script.partition(":")
    code = INTERRUPTED.format(module=module, function=function)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_ctrl_c_that_no_command_has_a_word_for(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """It said Aborted, and its exit status was that of a failure."""

    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "open_screen", interrupted)
    ended = CliRunner().invoke(cli.main, [])
    assert (ended.exit_code, ended.output) == (130, "")
