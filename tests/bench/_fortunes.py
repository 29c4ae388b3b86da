"""English prose that anybody can have: Debian's package `fortunes`, quotations on all kinds of subjects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

PACKAGE = "fortunes"
HOME = Path.home() / ".cache" / "quantchat-tests" / PACKAGE
FOLDER = HOME / "usr" / "share" / "games" / "fortunes"


def folder() -> Path:
    """Return the folder with the texts; the first call downloads and unpacks the package, without installing it."""
    if not FOLDER.is_dir():
        HOME.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", PACKAGE)
        [archive] = HOME.glob("*.deb")
        _run("dpkg-deb", "--extract", archive.name, ".")
    return FOLDER


def _run(*command: str) -> None:
    subprocess.run(command, cwd=HOME, check=True, stdout=sys.stderr)


def quotations() -> list[str]:
    """Return all of them, in an order that is the same at every run."""
    files = sorted(path for path in folder().iterdir() if not path.suffix and path.is_file())
    texts = (text for path in files for text in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"))
    unique = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    Random(1).shuffle(unique)
    return [text for text in unique if text]


def samples(count: int, characters: int) -> list[str]:
    """Join quotations to samples of at least so many characters; no quotation is in two of them."""
    gathered: list[str] = []
    parts: list[str] = []
    for text in quotations():
        parts.append(text)
        if sum(map(len, parts)) >= characters:
            gathered.append("\n\n".join(parts))
            parts = []
        if len(gathered) == count:
            return gathered
    raise SystemExit(f"The package {PACKAGE} has text for {len(gathered)} samples only")
