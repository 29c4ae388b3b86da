"""The kernel that is forecast, and why not a faster one, against what the engine then takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.catalog.reader import read_model
from quantchat.engine.building import is_built
from quantchat.engine.kernels import probe
from quantchat.hardware.gpu import NotAvailable
from quantchat.hardware.host import host_memory
from quantchat.services.experience import Experience
from quantchat.services.fit import forecast
from quantchat.services.memory import MemoryView
from quantchat.store.measured import Measured

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("kind", ["dense", "gptq", "awq"])
def test_the_engine_takes_what_was_forecast(rig, models: Path, kind: str) -> None:
    view = MemoryView(gpus=NotAvailable("none"), host=host_memory(), experience=Experience(Measured()))
    found = forecast(read_model(models / kind), view)
    loaded = rig.load(models / kind)
    assert not hasattr(loaded, "error"), loaded
    assert (found.kernel, found.refusals) == (loaded.report.kernel, loaded.report.refusals)


def test_the_machine_looks_the_same_without_torch() -> None:
    seen, probed = Experience(Measured()).host(()), probe(["cpu"], is_built)
    assert probed.built <= seen.built
    for field in ("device", "capability", "avx512_bf16", "compiler", "nvcc", "offline"):
        assert getattr(seen, field) == getattr(probed, field), field
