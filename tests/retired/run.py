"""Builds the environments of the retired libraries from the package index, and runs the contract of engines on them.

    python tests/retired/run.py [gptq] [awq] [--transcript FILE] [--keep]

Some gigabytes are fetched for awq: autoawq computes on the CPU only with the last intel_extension_for_pytorch, which
wants torch 2.8. The environments stay in the cache folder of the tests; `--keep` takes them as they are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

CACHE = Path.home() / ".cache" / "quantchat-tests"
TESTS = Path(__file__).resolve().parents[1]
GROUPS = {"gptq": "auto-gptq", "awq": "autoawq"}
"""The dependency group of `pyproject.toml` that says what ran together; auto-gptq has wheels up to Python 3.11."""
SAID = ("torch", "transformers", "accelerate", "peft", "optimum", "auto-gptq", "autoawq", "intel-extension-for-pytorch")


class Transcript:
    """Says things on the terminal and into a file."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def __call__(self, text: str = "") -> None:
        print(text, flush=True)
        if self._file is not None:
            print(text, file=self._file, flush=True)

    def run(self, *command: str, show: bool = True, **environment: str) -> int:
        """Run a program; show what it says, or only the end of it if it fails."""
        process = subprocess.Popen(
            command,
            cwd=TESTS.parent,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if show:
                self(lines[-1])
        if process.wait() and not show:
            for line in lines[-30:]:
                self(line)
        return process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="*", metavar="|".join(GROUPS), help="default: all")
    parser.add_argument("--transcript", type=Path)
    parser.add_argument("--keep", action="store_true", help="take the environments as they are, where they are")
    arguments = parser.parse_args()
    if unknown := set(arguments.stacks) - GROUPS.keys():
        parser.error(f"no such stack: {', '.join(unknown)}")
    stacks = arguments.stacks or list(GROUPS)
    file = arguments.transcript.open("w") if arguments.transcript else None
    say = Transcript(file)
    failed = [stack for stack in stacks if not examine(stack, say, keep=arguments.keep)]
    say(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(stacks)}")
    return 1 if failed else 0


def examine(stack: str, say: Transcript, *, keep: bool) -> bool:
    say(f"== {stack}")
    folder = CACHE / f"retired-{stack}"
    python = folder / "bin" / "python"
    if not (keep and python.exists()) and not build(folder, packages_of(GROUPS[stack]), say):
        return False
    code = (
        f"from importlib import metadata as m\nfor n in {SAID}:\n try: print(n, m.version(n))\n except Exception: pass"
    )
    say.run(str(python), "--version")
    say.run(str(python), "-c", code)
    examine_by_doctor(stack, python, say)
    begun = time.monotonic()
    environment = {
        "QUANTCHAT_RETIRED_PYTHON": str(python),
        "QUANTCHAT_RETIRED_METHOD": stack,
    }
    contract = str(Path(__file__).with_name("contract.py"))
    status = say.run(sys.executable, "-m", "pytest", "-n", "0", "-v", "-rA", "--no-header", contract, **environment)
    say(f"-- {stack}: {'passed' if status == 0 else 'FAILED'} in {time.monotonic() - begun:.0f} s")
    return status == 0


def examine_by_doctor(stack: str, python: Path, say: Transcript) -> None:
    with TemporaryDirectory() as home:
        config = Path(home) / "config" / "config.toml"
        config.parent.mkdir()
        config.write_text(f'[engine]\n{stack}_python = "{python}"\n')
        program = (sys.executable, "-c", "from quantchat.cli import main; main()")
        say.run(*program, "doctor", "--only", "stacks", QUANTCHAT_HOME=home)


def packages_of(group: str) -> list[str]:
    groups = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["dependency-groups"]
    found: list[str] = []
    for entry in groups[group]:
        found += [entry] if isinstance(entry, str) else packages_of(entry["include-group"])
    return found


def build(folder: Path, packages: list[str], say: Transcript) -> bool:
    """Make a virtual environment with these packages, whole or not at all."""
    begun = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    say(f"-- {folder}: pip install {' '.join(packages)}")
    made = say.run(sys.executable, "-m", "venv", str(folder), show=False) == 0
    if made and say.run(python, "-m", "pip", "install", "-q", *packages, show=False) == 0:
        say(f"-- built in {time.monotonic() - begun:.0f} s")
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
