"""Which interpreter runs a model, from the settings file to the engine process."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.backends import OWN, EngineSpec
from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.errors import EngineGone
from quantchat.hardware.gpu import NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.engine import EventHandler
from quantchat.services.fit import forecast
from quantchat.services.forecast import forecast_rows
from quantchat.services.library import Library, Phase
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.store.settings import Settings, load_settings
from unit.services.turn_bench import RecordingEngine

CONFIG = """
[engine]
python = "/any/python"
gptq_python = "/gptq/python"
awq_python = "/awq/python"
"""
FOUR_BITS = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}
GPTQ = ModelInfo(path="/m/gptq", name="gptq", quant=QuantSpec(method="gptq", checkpoint_format="gptq", **FOUR_BITS))
AWQ = ModelInfo(path="/m/awq", name="awq", quant=QuantSpec(method="awq"))
DENSE = ModelInfo(path="/m/dense", name="dense")
GGUF = ModelInfo(path="/m/a.gguf", name="gguf", container="gguf", quant=QuantSpec(method="gguf"))


def retired(python: str) -> EngineSpec:
    return EngineSpec(backend="retired", python=python)


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    found, problems = load_settings(file)
    assert problems == []
    return found


class Started:
    """A library, and the kinds of engine that it started for loads."""

    def __init__(self, chosen: Settings, error: Exception | None = None) -> None:
        self.specs: list[EngineSpec] = []
        self.engines: list[RecordingEngine] = []
        self._error = error
        options = LoadOptions(interpreters=chosen.engine)
        self.library = Library(lambda _: None, options=options, engine_factory=self._engine)

    def _engine(self, on_event: EventHandler, spec: EngineSpec = OWN) -> RecordingEngine:
        self.specs.append(spec)
        self.engines.append(RecordingEngine(on_event))
        if self._error is not None:
            self.engines[-1].start = self._fail  # type: ignore[method-assign]
        return self.engines[-1]

    async def _fail(self) -> None:
        assert self._error is not None
        raise self._error


async def test_every_model_gets_the_interpreter_of_its_method(tmp_path: Path) -> None:
    started = Started(settings(tmp_path, CONFIG))
    for model in (GPTQ, AWQ, DENSE, GGUF):
        await started.library.load(model)
    pythons = ("/gptq/python", "/awq/python", "/any/python")
    assert started.specs == [*map(retired, pythons), EngineSpec(backend="llama")]
    assert not any(engine.running for engine in started.engines[:-1]), "two models are never held at once"


async def test_an_interpreter_for_all_is_for_quantized_folders_too(tmp_path: Path) -> None:
    started = Started(settings(tmp_path, '[engine]\npython = "/any/python"\n'))
    await started.library.load(GPTQ)
    assert started.specs == [retired("/any/python")]


async def test_without_settings_all_is_quantchats_own(tmp_path: Path) -> None:
    started = Started(settings(tmp_path, ""))
    await started.library.load(AWQ)
    assert started.specs == [OWN]


async def test_an_interpreter_that_cannot_be_started_ends_the_load(tmp_path: Path) -> None:
    started = Started(settings(tmp_path, CONFIG), EngineGone("The engine cannot be started", "no such file"))
    with pytest.raises(EngineGone):
        await started.library.load(GPTQ)
    assert started.library.phase is not Phase.LOADING


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[engine]\ngptqpython = "/x"\n')
    _, (problem,) = load_settings(file)
    assert "gptqpython" in problem.detail


@pytest.mark.parametrize("path", ["venv/bin/python", "./python", "../old/bin/python"])
def test_a_path_from_the_current_folder_is_refused(tmp_path: Path, path: str) -> None:
    """Was the engine's current folder for loads and `/` for the doctor."""
    file = tmp_path / "config.toml"
    file.write_text(f'[engine]\ngptq_python = "{path}"\n')
    found, (problem,) = load_settings(file)
    assert found.engine.gptq_python == ""
    assert f"line 2: `engine.gptq_python` '{path}' is not allowed" in problem.detail
    assert "'/opt/old/bin/python' or '~/old/bin/python'" in problem.detail


@pytest.mark.parametrize("path", ["/opt/my env/bin/python", "~/old/bin/python", "~other/bin/python", "python3.11", ""])
def test_a_path_that_is_one_everywhere_is_taken(tmp_path: Path, path: str) -> None:
    assert settings(tmp_path, f'[engine]\npython = "{path}"\n').engine.python == path


def test_the_forecast_names_the_interpreter(tmp_path: Path) -> None:
    chosen = LoadOptions(interpreters=settings(tmp_path, '[engine]\ngptq_python = "/gptq/python"\n').engine)
    view = MemoryView(gpus=NotAvailable("none"), host=HostMemory(2**34, 2**33, 2**33), options=chosen)
    rows = {model.name: [row.label for row in forecast_rows(model, forecast(model, view))] for model in (GPTQ, DENSE)}
    assert "Interpreter" in rows["gptq"]
    assert "Interpreter" not in rows["dense"]
