"""Whether two models find room at once, on machines that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.memory import GIB
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.comparing.room import beside_the_chat, fit_at_once, kernels_for, too_big
from quantchat.services.experience import Experience
from quantchat.services.fit import forecast
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.store.measured import Measured
from unit.services.test_fit import gpu, llama

ENGINE = 4242


@pytest.fixture
def experience(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Experience:
    for name in ("c++", "ninja", "nvcc"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return Experience(Measured())


def view(experience: Experience, *gpus: GpuDevice, host: float = 32, held: float = 0) -> MemoryView:
    seen = GpuSnapshot(gpus) if gpus else NotAvailable("none")
    memory = HostMemory(int(64 * GIB), int((64 - host) * GIB), int(host * GIB))
    return MemoryView(
        gpus=seen, host=memory, experience=experience, engine_pid=ENGINE, engine_host_bytes=int(held * GIB)
    )


@pytest.mark.parametrize("free", [5.0, 10.0, 13.0, 20.0])
def test_two_models_share_a_card_only_if_both_fit_with_room_to_spare(experience: Experience, free: float) -> None:
    wanted = [(llama(), LoadOptions())] * 2
    seen = view(experience, gpu(free=free))
    judged = forecast(llama(), seen).judgement
    assert judged is not None
    assert fit_at_once(wanted, seen) == (2 * judged.needed <= 0.9 * free * GIB)
    assert fit_at_once(wanted[:1], seen) == (judged.fit == "fits")


def test_both_sides_of_the_answer_are_met(experience: Experience) -> None:
    wanted = [(llama(), LoadOptions())] * 2
    assert fit_at_once(wanted, view(experience, gpu(free=22)))
    assert not fit_at_once(wanted, view(experience, gpu(free=9)))
    elsewhere = [(llama(), LoadOptions(device=name)) for name in ("cuda:0", "cuda:1")]
    assert fit_at_once(elsewhere, view(experience, gpu(free=9), gpu(1, free=9)))


def test_what_the_driver_does_not_tell_is_no_room(experience: Experience) -> None:
    assert not fit_at_once([(llama(), LoadOptions())] * 2, view(experience, GpuDevice(index=0, name="GPU")))


def test_what_the_chat_holds_counts_as_taken(experience: Experience) -> None:
    seen = view(experience, gpu(free=2, engine_bytes=18 * GIB), held=8)
    assert forecast(llama(), seen).judgement.fit == "fits"
    beside = beside_the_chat(seen)
    report = too_big((llama(), LoadOptions()), beside, "the other one")
    assert report is not None
    assert "2.0 GiB are free" in report.detail
    assert "the other one" in report.remedy
    assert "F7" not in too_big((llama(), LoadOptions()), beside, "").remedy
    on_host = beside_the_chat(view(experience, host=10, held=8))
    assert on_host.engine_host_bytes is None
    assert too_big((llama(), LoadOptions()), beside_the_chat(view(experience, gpu(free=22))), "") is None


def test_kernels_are_named_with_why_others_cannot(experience: Experience) -> None:
    found = dict(kernels_for(llama(), view(experience, gpu()), LoadOptions(kernel="triton")))
    assert found["gptq_marlin"] == ""
    assert found["gptq_machete"]
    on_cpu = dict(kernels_for(llama(), view(experience, gpu()), LoadOptions(device="cpu")))
    assert "gptq_marlin" not in on_cpu
    assert on_cpu["gptq_torch_aten"] == ""
