from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

from engine import tiny
from engine.rig import Rig


@pytest.fixture(scope="session")
def models() -> Path:
    return tiny.folder()


@pytest.fixture(scope="session")
def rig():
    rig = Rig()
    yield rig
    assert rig.worker.close(timeout=30)


@pytest.fixture
def gptq(rig, models):
    """The rig with the GPTQ model loaded."""
    loaded = rig.load(models / "gptq")
    assert not hasattr(loaded, "error"), loaded
    rig.events.clear()
    return rig


@pytest.fixture
def copy_of(models, tmp_path):
    """Return a function that copies a tiny model to change it."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(models / kind, tmp_path / kind))

    return copy
