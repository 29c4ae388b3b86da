"""quantchat's own command line, as a user would run it, and a place for what it makes."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.domain.quality import Quality

PROGRAM = Path(sys.executable).with_name("quantchat")


def quantchat(*arguments: str | Path) -> str:
    """Run a command to its end and return what it prints; progress and errors go to the standard error."""
    command = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def copied(source: Path, folder: Path) -> Path:
    """Copy a model, so that what is measured is not kept beside the one that the tests use."""
    copy = folder / source.name
    if not copy.exists():
        shutil.copytree(source, copy)
    return copy


def quantize(source: Path, target: Path, *options: str) -> None:
    """Make a quantized folder, unless it is there already."""
    if not target.exists():
        quantchat("quantize", source, "-o", target, "--no-smoke", *options)


def evaluate(models: list[Path], reference: Path, *options: str | Path) -> dict[Path, Quality]:
    """Measure models against their reference, and the reference itself."""
    printed = quantchat("evaluate", *models, "--against", reference, "--json", *options)
    rows = json.loads(printed)["models"]
    return {Path(row["path"]): msgspec.convert(row["quality"], Quality) for row in rows}


@contextlib.contextmanager
def working_folder(wanted: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which stays, or one that is removed after."""
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="quantchat-bench-") as name:
        yield Path(name)
