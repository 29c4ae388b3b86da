"""Forecasts for GGUF files: llama.cpp with and without GPUs, layers that the CPU takes, cells that a load reserves."""

from __future__ import annotations

import msgspec
import pytest

from quantchat.catalog.fit import Setting, judge, largest_context, predict
from quantchat.domain import offload
from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services import experience
from quantchat.services.experience import Experience
from quantchat.services.fit import forecast, judge_model
from quantchat.services.forecast import forecast_rows
from quantchat.services.memory import MemoryView
from quantchat.store.measured import Measured

LAYERS, LAYER_BYTES = 32, 140 * 1024**2
Q4 = QuantSpec(method="gguf", bits=4, checkpoint_format="q4_k_m")


def llama(window: int = 8192, layer_bytes: int = LAYER_BYTES) -> ModelInfo:
    """An 8B model as a GGUF file."""
    return msgspec.convert(
        {
            "path": "/m.gguf", "name": "m", "container": "gguf", "context_window": window,
            "weight_bytes": (LAYERS + 2) * layer_bytes, "quant": msgspec.to_builtins(Q4),
            "shape": {"layers": LAYERS, "hidden_size": 4096, "attention_heads": 32, "kv_heads": 8, "head_size": 128,
                      "vocabulary": 128256},
            "weights": {"prefix": "blk", "layers": [{"count": LAYERS, "pieces": {"other": layer_bytes}}],
                        "inputs": {"other": layer_bytes}, "outputs": {"other": layer_bytes}, "widest": 14336},
        },
        ModelInfo,
    )  # fmt: skip


@pytest.fixture(params=[True], ids=["built for GPUs"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Experience:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(experience, "llama_offloads", lambda: request.param)
    return Experience(Measured())


def view(machine: Experience, *free: float, host: float = 32) -> MemoryView:
    cards = [
        GpuDevice(index=index, name="GPU", total=24 * GIB, free=int(size * GIB), capability=(8, 6))
        for index, size in enumerate(free)
    ]
    seen = GpuSnapshot(tuple(cards)) if cards else NotAvailable("none")
    memory = HostMemory(int(64 * GIB), int((64 - host) * GIB), int(host * GIB))
    return MemoryView(gpus=seen, host=memory, experience=machine)


def test_the_kernel_is_llama_cpp(machine: Experience) -> None:
    found = forecast(llama(), view(machine, 22))
    assert found.kernel == "llama.cpp"
    assert found.judgement is not None
    assert found.judgement.fit == "fits"
    assert [row.value for row in forecast_rows(llama(), found) if row.label == "Kernel"] == ["llama.cpp"]


def test_on_a_card_that_is_too_small_the_cpu_takes_the_rest(machine: Experience) -> None:
    found = forecast(llama(), view(machine, 3))
    assert found.judgement is not None
    assert (found.judgement.fit, found.judgement.missing) == ("tight", 0)
    assert judge_model(llama(), view(machine, 3)) == "tight"
    assert judge_model(llama(), view(machine, 3, host=1)) == "too big"


@pytest.mark.parametrize("machine", [False], indirect=True, ids=["built for the CPU"])
def test_without_code_for_gpus_the_host_counts(machine: Experience) -> None:
    found = forecast(llama(), view(machine, 22, host=32))
    assert [device.device for device in found.devices] == ["cpu"]
    assert judge_model(llama(), view(machine, 22, host=2)) == "too big"


def test_what_a_load_reserves_is_predicted_and_a_short_context_fits_in_less() -> None:
    found = predict(llama(), Setting())
    assert found.reserved == 8192 * offload.token_bytes(llama())
    assert found.predicted == found.runtime + found.weights + found.workspace + found.reserved
    assert found.needed < found.predicted
    assert judge(found, found.predicted + GIB).fit == "fits"
    assert judge(found, found.needed + 1).fit == "tight"
    assert judge(found, found.needed - 1).fit == "too big"


def test_a_load_that_was_measured_corrects_the_formulas() -> None:
    plain = predict(llama(), Setting())
    measured = predict(llama(), Setting(loaded=plain.predicted + GIB))
    assert measured.needed == plain.needed + GIB


def test_the_longest_context_grows_with_the_memory() -> None:
    model = llama(window=131072)
    contexts = [largest_context(model, Setting(), size * GIB) for size in (4, 8, 12, 64)]
    assert contexts == sorted(contexts)
    assert contexts[0] == 0
    assert 0 < contexts[1] < contexts[2] < contexts[3] == 131072
