from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from demo_model import demo_model
from engine import tiny
from engine.repacked import as_awq
from retired.remote import RemoteRig

PYTHON, METHOD = "QUANTCHAT_RETIRED_PYTHON", "QUANTCHAT_RETIRED_METHOD"


@pytest.fixture(scope="session")
def method() -> str:
    return os.environ[METHOD]


@pytest.fixture(scope="session")
def models(tmp_path_factory, method) -> Path:
    """The tiny models; what the shared tests know as `gptq` is the one of the method."""
    folder = tmp_path_factory.mktemp("models")
    for name, kind in {"dense": "dense", "gptq": method, method: method}.items():
        (folder / name).symlink_to(tiny.folder() / kind)
    return folder


@pytest.fixture(scope="session")
def real(tmp_path_factory, method) -> Path:
    """A quantized SmolLM2, which answers sensibly: the demo's, as AWQ with the same integers."""
    gptq = demo_model()
    return gptq if method == "gptq" else as_awq(gptq, tmp_path_factory.mktemp("real") / "awq")


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    rig = RemoteRig(os.environ[PYTHON], tmp_path_factory.mktemp("engine") / "engine.log")
    assert rig.ready.backend == "retired"
    yield rig
    assert rig.worker.close()


@pytest.fixture
def gptq(rig, models, method):
    """The rig with the tiny model of the method loaded; the name is that of the tests which are shared."""
    loaded = rig.load(models / method)
    assert not hasattr(loaded, "error"), loaded
    rig.events.clear()
    return rig


@pytest.fixture
def copy_of(models, tmp_path, method):
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(models / method, tmp_path / method))
