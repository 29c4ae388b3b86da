"""How the retired libraries are called, with modules that stand in for them."""

from __future__ import annotations

import queue
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.errors import EngineError, LoadError

pytestmark = pytest.mark.engine
GPTQ = QuantSpec(method="gptq", bits=4, group_size=32, checkpoint_format="gptq")


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Late: it imports torch."""
    from quantchat.engine.backends.retired import libraries

    return libraries


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch):
    """Put a module in the place of a library."""

    def put(name: str, **contents: Any) -> None:
        module = ModuleType(name)
        # `find_spec` looks at it.
        module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def network() -> Any:
    """A network with a packed module, a norm and tied embeddings, none of it filled."""
    import torch

    class Packed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("qweight", torch.zeros(4, 8, dtype=torch.int32))
            self.register_buffer("scales", torch.zeros(1, 8, dtype=torch.float16))
            self.register_buffer("g_idx", torch.zeros(32, dtype=torch.int32))
            self.register_buffer("bias", torch.zeros(8, dtype=torch.float16))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(4, 8, dtype=torch.bfloat16)
            self.packed, self.norm = Packed(), torch.nn.LayerNorm(8, bias=False, dtype=torch.bfloat16)
            self.head = torch.nn.Linear(8, 4, bias=False, dtype=torch.bfloat16)

        def tie_weights(self) -> None:
            self.head.weight = self.embedding.weight

    made = Network()
    made.tie_weights()
    return made


def tensors() -> dict[str, Any]:
    import torch

    return {
        "embedding.weight": torch.randn(4, 8),
        "norm.weight": torch.randn(8),
        "packed.qweight": torch.ones(4, 8, dtype=torch.int32),
        "packed.scales": torch.randn(1, 8),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, tensors())
    return tmp_path


def write(folder: Path, named: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(named, folder / "model.safetensors")


def source(libraries, folder: Path):
    import torch

    return libraries.Source(ModelInfo(path=str(folder), name="m", quant=GPTQ), folder, "cpu", torch.bfloat16)


def test_auto_gptq_gets_its_weights_from_us(libraries, library, folder: Path) -> None:
    """Through the versions of accelerate that go with newer Pythons it reads none, and says nothing."""
    import torch
    from accelerate.utils import modeling

    from quantchat.engine.backends.retired import weights

    own, asked = modeling.load_checkpoint_in_model, {}

    class AutoGPTQForCausalLM:
        @classmethod
        def from_quantized(cls, path: str, **options: Any) -> Any:
            asked.update(options, path=path)
            model = network()
            modeling.load_checkpoint_in_model(model, checkpoint=path, dtype=options["torch_dtype"], device_map={})
            return SimpleNamespace(model=model)

    library("auto_gptq", AutoGPTQForCausalLM=AutoGPTQForCausalLM)
    info = ModelInfo(path=str(folder), name="m", quant=GPTQ)
    model = libraries.loader_for(info).load(source(libraries, folder))
    weights.check(model, folder)
    assert modeling.load_checkpoint_in_model is own, "only for the load"
    assert model.packed.scales.dtype == torch.bfloat16, "a product of two dtypes would fail at the first token"
    assert (asked["disable_exllama"], asked["disable_exllamav2"], asked["trust_remote_code"]) == (True, True, False)


def test_autoawq_is_not_fused_and_runs_no_foreign_code(libraries, library, folder: Path) -> None:
    asked: dict[str, Any] = {}

    class AutoAWQForCausalLM:
        @classmethod
        def from_quantized(cls, path: str, **options: Any) -> Any:
            asked.update(options)
            return SimpleNamespace(model="the model")

    library("awq", AutoAWQForCausalLM=AutoAWQForCausalLM)
    library("intel_extension_for_pytorch")
    info = ModelInfo(path=str(folder), name="m", quant=QuantSpec(method="awq", bits=4))
    loader = libraries.loader_for(info)
    assert loader.load(source(libraries, folder)) == "the model"
    assert asked["fuse_layers"] is asked["trust_remote_code"] is False
    assert (asked["use_ipex"], asked["device_map"]) == (True, {"": "cpu"})


def test_autoawq_without_its_cpu_kernels_says_what_to_install(libraries, library, folder: Path, monkeypatch) -> None:
    library("awq")
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", None)
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if "intel" in name else name)
    info = ModelInfo(path=str(folder), name="m", quant=QuantSpec(method="awq", bits=4))
    with pytest.raises(LoadError) as caught:
        libraries.loader_for(info).load(source(libraries, folder))
    assert "pip install torch==2.8.0 intel-extension-for-pytorch==2.8.0" in caught.value.report.remedy


@pytest.mark.parametrize(
    ("quant", "words"),
    [
        (QuantSpec(method="gptq", bits=4, checkpoint_format="gptq_v2"), "gptq_v2"),
        (QuantSpec(method="gptq", bits=4, dynamic=True), "bits per module"),
        (QuantSpec(method="awq", bits=8), "4 bits, not 8"),
        (QuantSpec(method="fp8"), ""),
    ],
)
def test_what_they_cannot_load_is_refused(libraries, library, quant: QuantSpec, words: str) -> None:
    library("auto_gptq")
    library("awq")
    with pytest.raises(LoadError) as caught:
        libraries.loader_for(ModelInfo(path="/m", name="m", quant=quant))
    assert words in caught.value.report.detail
    assert "[engine]" in caught.value.report.remedy


def test_a_missing_library_is_named_with_the_command(libraries, monkeypatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(LoadError) as caught:
        libraries.loader_for(ModelInfo(path="/m", name="m", quant=GPTQ))
    assert f"{sys.executable} -m pip install auto-gptq" in caught.value.report.remedy


@pytest.mark.parametrize("damage", ["missing", "unused", "other", "meta"])
def test_weights_that_are_not_those_of_the_files_fail_the_load(folder: Path, damage: str) -> None:
    import torch

    from quantchat.engine.backends.retired import weights

    model, named = network(), tensors()
    if damage == "missing":
        del named["norm.weight"]
    if damage == "unused":
        named["other.qweight"] = torch.ones(4, 8, dtype=torch.int32)
    write(folder, named)
    weights.fill(model, folder, torch.bfloat16)
    if damage == "other":
        model.embedding.weight.data.zero_()
    if damage == "meta":
        model.norm.weight = torch.nn.Parameter(torch.empty(8, device="meta"))
    name = {"missing": "norm.weight", "unused": "other.qweight", "other": "embedding.weight", "meta": "norm.weight"}
    with pytest.raises(LoadError) as caught:
        weights.check(model, folder)
    assert name[damage] in caught.value.report.detail


@pytest.mark.parametrize(("transformers", "own"), [("5.23.0", True), ("4.57.1", False)])
def test_an_interpreter_with_the_current_libraries_runs_as_quantchats_own(
    library, monkeypatch, transformers: str, own: bool
) -> None:
    from quantchat.engine.backends import retired

    monkeypatch.setattr(retired, "versions_of", lambda _: {"transformers": transformers, "gptqmodel": "7.7.0"})
    for name in ("tasks", "backends.retired.tasks"):
        kind = "RetiredTasks" if "retired" in name else "Tasks"
        module = SimpleNamespace(**{kind: lambda _, kind=kind: kind}, devices=lambda: ("cpu",))
        monkeypatch.setitem(sys.modules, f"quantchat.engine.{name}", module)
        monkeypatch.setattr(sys.modules[f"quantchat.engine.{name}".rpartition(".")[0]], "tasks", module, raising=False)
    assert retired.open_retired(lambda _: None).tasks == ("Tasks" if own else "RetiredTasks")


def test_an_interpreter_without_torch_says_what_to_install(monkeypatch) -> None:
    from quantchat.engine.backends import retired

    monkeypatch.setattr(retired, "versions_of", lambda _: {"transformers": "4.51.3"})
    monkeypatch.setitem(sys.modules, "quantchat.engine.backends.retired.tasks", None)
    with pytest.raises(EngineError) as caught:
        retired.open_retired(lambda _: None)
    assert caught.value.report.code == "libraries"
    assert "pip install torch transformers" in caught.value.report.remedy


def test_the_engine_imports_beside_older_libraries() -> None:
    """transformers 4 has not what our caches and batches are made of, and nobody has gptqmodel there."""
    code = "import sys, quantchat.engine.backends.retired.tasks; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    newer = {
        f"quantchat.engine.{name}" for name in ("kvcache", "kvlayers", "kvstate", "batch", "graphs", "loader", "checks")
    }
    assert not set(run.stdout.split()) & (newer | {"gptqmodel", "optimum", "logbar", "textual", "openai", "llama_cpp"})


def test_what_a_backend_says_of_its_libraries_reaches_every_load(monkeypatch) -> None:
    from quantchat.engine import protocol as p
    from quantchat.engine import worker

    def refuse(*_: object) -> None:
        raise EngineError("no torch there", remedy="install it", code="libraries")

    monkeypatch.setattr(worker, "open_backend", refuse)
    events: queue.SimpleQueue[p.Event] = queue.SimpleQueue()
    thread = worker.Worker(events.put, "retired")
    thread.start()
    thread.submit(p.Load(request="l", model=ModelInfo(path="/m", name="m")))
    told, failed = events.get(timeout=30), events.get(timeout=30)
    assert isinstance(told, p.Log)
    assert told.text.startswith("no torch there")
    assert isinstance(failed, p.LoadFailed)
    assert (failed.error.title, failed.error.remedy) == ("no torch there", "install it")
    assert thread.close()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ImportError("cannot import name 'no_init_weights'"), "libraries", "doctor"),
        (NotImplementedError("Cannot copy out of meta tensor; no data!"), "load", "Copy or download"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out-of-memory", "smaller model"),
        (TypeError("qwen9 isn't supported yet."), "load", "[engine]"),
    ],
)
def test_what_a_library_raises_is_explained(libraries, folder: Path, error: Exception, code: str, words: str) -> None:
    from quantchat.engine.backends.retired import loading

    job = SimpleNamespace(loader=libraries.LOADERS["gptq"], source=source(libraries, folder))
    with pytest.raises(LoadError) as caught, loading._explained(job):
        raise error
    assert caught.value.report.code == code
    assert words in caught.value.report.remedy
