"""Forecasts on machines that are not here, and loads that wait for memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantchat import __version__
from quantchat.catalog.attention import read_attention
from quantchat.catalog.shape import read_shape
from quantchat.domain.loading import DeviceShare, KernelRefusal
from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo, Problem, QuantSpec
from quantchat.engine.protocol import LoadReport
from quantchat.hardware.gpu import GpuDevice, GpuProcess, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.experience import Experience
from quantchat.services.facts import Fact, Notice
from quantchat.services.fit import forecast
from quantchat.services.info import card, sections
from quantchat.services.loads import LoadOptions
from quantchat.services.memory import MemoryView
from quantchat.services.waiting import LoadWhenFree, split_amount
from quantchat.store.measured import Measured
from unit.catalog.real_shapes import LLAMA_3_8B, llama_tensors, weighed

GPTQ = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq")
ENGINE = 4242


def llama(**more: object) -> ModelInfo:
    spec = more.get("quant", GPTQ)
    fields = {
        "quant": spec,
        "shape": read_shape(LLAMA_3_8B),
        "attention": read_attention(LLAMA_3_8B),
        "weights": weighed(llama_tensors(LLAMA_3_8B, bits=4), spec, LLAMA_3_8B),
        "weight_bytes": 5_700_000_000,
        "context_window": 8192,
    }
    return ModelInfo(path="/m", **{"name": "llama"} | fields | more)


def gpu(index: int = 0, free: float = 22, **more: object) -> GpuDevice:
    fields = {"name": "GPU", "total": 24 * GIB, "free": int(free * GIB), "capability": (8, 6)}
    return GpuDevice(index=index, **fields | more)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Experience:
    """With a compiler of every kind, as real files on PATH."""
    for name in ("c++", "ninja", "nvcc"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPTQMODEL_TORCH_EXTENSIONS_DIR", str(tmp_path / "none"))
    return Experience(Measured())


def view(experience: Experience, *gpus: GpuDevice, host: float = 32, **more: object) -> MemoryView:
    seen = GpuSnapshot(gpus) if gpus else NotAvailable("none")
    memory = HostMemory(int(64 * GIB), int((64 - host) * GIB), int(host * GIB))
    return MemoryView(gpus=seen, host=memory, experience=experience, **more)


def test_a_card_with_room(machine: Experience) -> None:
    found = forecast(llama(), view(machine, gpu()))
    assert found.kernel == "gptq_marlin"
    assert [refusal.kernel for refusal in found.refusals] == ["gptq_swordfish", "gptq_machete"]
    assert found.judgement is not None
    assert found.judgement.fit == "fits"
    assert found.contexts[0].tokens == 8192
    assert [row.supported for row in found.contexts] == [True, False, False]
    assert len(found.placement) == 1


def test_without_a_compiler_the_forecast_is_the_slow_kernel_and_why(
    machine: Experience, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("c++", "ninja", "nvcc"):
        (tmp_path / name).unlink()
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = forecast(llama(), view(Experience(Measured()), gpu()))
    assert (found.kernel, found.slow) == ("gptq_torch", True)
    marlin = next(refusal for refusal in found.refusals if refusal.kernel == "gptq_marlin")
    assert "no C++ compiler" in marlin.reason
    assert "apt install" in marlin.remedy


def test_a_card_that_is_full_says_what_is_missing_and_who_holds_it(machine: Experience) -> None:
    busy = gpu(free=2, processes=(GpuProcess(1, 15 * GIB), GpuProcess(2**31 - 7, GIB)))
    found = forecast(llama(), view(machine, busy))
    assert found.judgement is not None
    assert found.judgement.fit == "too big"
    assert found.judgement.missing == found.judgement.needed - 2 * GIB > 0
    assert found.contexts[0].tokens == 0
    (device,) = found.devices
    assert [(holder.pid, holder.owner is None) for holder in device.holders] == [(1, False), (2**31 - 7, True)]


def test_what_the_engine_holds_is_free_for_the_next_model(machine: Experience) -> None:
    held = gpu(free=2, engine_bytes=20 * GIB, processes=(GpuProcess(ENGINE, 20 * GIB),))
    found = forecast(llama(), view(machine, held, engine_pid=ENGINE))
    assert found.judgement is not None
    assert found.judgement.fit == "fits"
    assert found.devices[0].holders == ()


def test_two_small_cards_share_the_layers(machine: Experience) -> None:
    found = forecast(llama(), view(machine, gpu(0, free=6), gpu(1, free=6)))
    assert [block.device for block in found.placement] == ["cuda:0", "cuda:1"]
    assert sum(block.count for block in found.placement) == 32
    assert found.judgement is not None
    assert found.judgement.fit != "too big"
    assert view(machine, gpu(0, free=6), gpu(1, free=6)).fit(llama()) != "too big"
    assert view(machine, gpu(0, free=2), gpu(1, free=2)).fit(llama()) == "too big"


def test_a_card_whose_share_does_not_fit_is_too_big_though_the_sum_would(machine: Experience) -> None:
    wanted = LoadOptions(placement=(DeviceShare("cuda:0", 1.0), DeviceShare("cuda:1", 1.0)))
    found = forecast(llama(), view(machine, gpu(0, free=2), gpu(1, free=20)), wanted)
    assert found.judgement is not None
    assert found.judgement.fit == "too big"
    assert 0 < found.judgement.missing < found.judgement.needed


def test_the_second_card_holds_the_model_whole(machine: Experience) -> None:
    found = forecast(llama(), view(machine, gpu(0, free=2), gpu(1, free=20)))
    assert [block.device for block in found.placement] == ["cuda:1"]
    assert found.judgement is not None
    assert found.judgement.fit == "fits"


def test_a_wish_for_the_cpu_leaves_the_card_alone(machine: Experience) -> None:
    found = forecast(llama(), view(machine, gpu()), LoadOptions(device="cpu"))
    assert [device.device for device in found.devices] == ["cpu"]
    assert found.kernel.startswith("gptq_torch_")


def test_a_card_that_does_not_tell_its_memory_is_not_judged(machine: Experience) -> None:
    silent = gpu(total=None, free=0)
    silent = GpuDevice(index=0, name=silent.name, capability=(8, 6))
    found = forecast(llama(), view(machine, silent))
    assert (found.kernel, found.judgement, found.contexts) == ("gptq_marlin", None, ())
    assert view(machine, silent).fit(llama()) is None


def test_a_model_that_no_kernel_takes(machine: Experience) -> None:
    odd = QuantSpec(method="awq", bits=4, group_size=128, checkpoint_format="gemv")
    model = llama(quant=odd)
    found = forecast(model, view(machine))
    assert "gemv" in found.problem
    assert view(machine).fit(model) == "broken"
    (verdict,) = [row for part in sections(card(model, found)) for row in part.rows if row.label == "Verdict"]
    assert (verdict.tone, "no kernel" in verdict.value) == ("error", True)


def test_a_broken_model_is_broken_wherever_it_would_go(machine: Experience) -> None:
    damaged = llama(problems=(Problem(code="x", severity="error", cause="c", remedy="r"),))
    assert view(machine, gpu()).fit(damaged) == "broken"


def test_a_load_is_learnt_and_corrects_the_next_forecast(machine: Experience) -> None:
    model, room = llama(), view(machine, host=24)
    before = forecast(model, room)
    assert before.prediction is not None
    report = LoadReport(
        path="/m", name="llama", architecture="", device="cpu", dtype="bfloat16", kernel=before.kernel,
        device_bytes=before.prediction.predicted + GIB, idle_bytes=GIB,
    )  # fmt: skip
    machine.learn(model, report, {"torch": "2", "gptqmodel": "7"})
    after = forecast(model, room)
    assert after.prediction is not None
    assert after.prediction.loaded == before.prediction.predicted + GIB
    assert after.prediction.runtime == GIB
    (known,) = machine.measured.loads
    assert known.predicted == before.prediction.predicted + GIB - before.prediction.runtime
    assert known.versions == f"gptqmodel 7 quantchat {__version__} torch 2"


def report_of(kernel: str, measured: int, **more: object) -> LoadReport:
    return LoadReport(
        path="/m", name="llama", architecture="", dtype="float16", kernel=kernel, device_bytes=measured, **more
    )


def test_what_other_versions_took_corrects_nothing(machine: Experience) -> None:
    """A newer torch is installed, and nothing was loaded with it yet."""
    report = report_of("gptq_marlin", 9 * GIB, device="cuda:0", decoding="graph")
    machine.learn(llama(), report, {"torch": "0"})
    present = Experience(machine.measured)
    found = forecast(llama(), view(present, gpu()))
    assert found.prediction is not None
    assert found.prediction.measured is None
    assert machine.versions != present.versions


def test_a_load_on_the_second_card_corrects_that_on_any(machine: Experience) -> None:
    machine.learn(llama(), report_of("gptq_marlin", 9 * GIB, device="cuda:1", decoding="graph"), {})
    for room in (view(machine, gpu(0, free=2), gpu(1)), view(machine, gpu())):
        found = forecast(llama(), room)
        assert found.prediction is not None
        assert found.prediction.measured == 9 * GIB
    several = forecast(llama(), view(machine, gpu(0, free=6), gpu(1, free=6)))
    assert several.prediction is not None
    assert several.prediction.measured is None


def test_the_kernel_is_that_of_the_card_that_is_taken(machine: Experience) -> None:
    old = gpu(1, capability=(7, 0))
    assert forecast(llama(), view(machine, gpu(0), old)).kernel == "gptq_marlin"
    assert forecast(llama(), view(machine, gpu(0, free=2), old)).kernel == "gptq_exllama_v2"


def test_only_visible_cards_are_taken(machine: Experience, monkeypatch: pytest.MonkeyPatch) -> None:
    box = view(machine, gpu(0, free=2), gpu(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = forecast(llama(), box)
    assert [(device.device, device.free) for device in found.devices] == [("cuda:0", 22 * GIB)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [device.device for device in forecast(llama(), box).devices] == ["cpu"]


@pytest.mark.parametrize("wish", [{"device": "cuda:3"}, {"placement": (DeviceShare("cuda:3"),)}])
def test_a_device_that_is_not_there_is_said(machine: Experience, wish: dict[str, object]) -> None:
    room = view(machine, gpu(), options=LoadOptions(**wish))
    assert "cuda:3" in forecast(llama(), room).problem
    assert "no device cuda" in forecast(llama(), view(machine), LoadOptions(device="cuda")).problem


def test_the_list_heeds_the_settings(machine: Experience) -> None:
    small_host = view(machine, gpu(), host=2, options=LoadOptions(device="cpu"))
    assert small_host.fit(llama()) == "too big"
    assert view(machine, gpu(), host=2).fit(llama()) == "fits"


def test_a_kernel_that_failed_is_not_forecast_again(machine: Experience) -> None:
    failed = (KernelRefusal("gptq_marlin", "could not be built"),)
    found = forecast(llama(), view(machine, gpu()), failed=failed)
    assert found.kernel == "gptq_exllama_v2"
    assert failed[0] in found.refusals


def test_judging_a_thousand_rows_is_no_work(machine: Experience, monkeypatch: pytest.MonkeyPatch) -> None:
    model, room = llama(), view(machine, gpu())
    room.fit(model)

    def again(*_: object) -> None:
        raise AssertionError("predicted twice")

    monkeypatch.setattr("quantchat.services.fit.predict", again)
    assert all(room.fit(model) == "fits" for _ in range(1000))


class Waiter:
    """A box whose card is emptied by somebody else."""

    def __init__(self, experience: Experience, *free: float) -> None:
        self.loaded: list[str] = []
        self.facts: list[Fact] = []
        self._views: Iterator[MemoryView] = (view(experience, gpu(free=size)) for size in free)
        self._last = view(experience, gpu(free=free[-1]))
        self.looks = 0
        self.answering = False
        self.loads = LoadWhenFree(lambda model: self.loaded.append(model.name), self.look, self.facts.append,
                                  busy=lambda: self.answering, poll_seconds=0)  # fmt: skip

    async def look(self) -> MemoryView:
        self.looks += 1
        await asyncio.sleep(0)
        return next(self._views, self._last)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("text", "name", "gib"),
    [("", "", None), ("qwen", "qwen", None), ("qwen 20", "qwen", 20), ("20", "", 20), ("a b 1.5GiB", "a b", 1.5),
     ("qwen 20 GiB", "qwen", 20), ("qwen 1,5 gb", "qwen", 1.5), ("qwen-7b", "qwen-7b", None),
     ("qwen 7b", "qwen 7b", None),
     ("qwen 0", "qwen 0", None), ("qwen nan", "qwen nan", None), ("llama 1e9", "llama 1e9", None)],
)  # fmt: skip
def test_an_amount_may_follow_the_name(text: str, name: str, gib: float | None) -> None:
    assert split_amount(text) == (name, None if gib is None else int(gib * GIB))


async def test_waiting_for_more_than_there_is_ends_with_the_reason(machine: Experience) -> None:
    waiter = Waiter(machine, 22)
    waiter.loads.start(llama(), 25 * GIB)
    await waiter.until(lambda: waiter.loads.waiting is None)
    (notice,) = [fact for fact in waiter.facts if isinstance(fact, Notice)]
    assert "25.0 GiB are never free: cuda:0 has 24.0 GiB in all" in notice.report.detail
    assert waiter.loaded == []


async def test_a_model_that_cannot_be_loaded_is_not_waited_for(machine: Experience) -> None:
    waiter = Waiter(machine, 22)
    waiter.loads.start(llama(problems=(Problem(code="x", severity="error", cause="Half is missing.", remedy="r"),)))
    assert waiter.loads.waiting is None
    (notice,) = [fact for fact in waiter.facts if isinstance(fact, Notice)]
    assert "Half is missing." in notice.report.detail


async def test_a_load_waits_for_the_end_of_an_answer(machine: Experience) -> None:
    waiter = Waiter(machine, 22)
    waiter.answering = True
    waiter.loads.start(llama())
    await waiter.until(lambda: waiter.looks > 2)
    assert waiter.loaded == []
    assert waiter.loads.waiting is not None
    assert "after this answer" in waiter.loads.waiting.line()
    waiter.answering = False
    await waiter.until(lambda: waiter.loaded)


async def test_a_load_waits_until_there_is_room(machine: Experience) -> None:
    waiter = Waiter(machine, 2, 3, 22)
    waiter.loads.start(llama())
    assert waiter.loads.waiting is not None
    await waiter.until(lambda: waiter.looks == 2)
    assert waiter.loaded == []
    assert "are free for llama" in waiter.loads.waiting.line()
    await waiter.until(lambda: waiter.loaded)
    assert waiter.loaded == ["llama"]
    assert waiter.looks == 3
    assert waiter.loads.waiting is None


async def test_bytes_that_the_user_named_are_waited_for(machine: Experience) -> None:
    waiter = Waiter(machine, 12, 22)
    waiter.loads.start(llama(), 20 * GIB)
    await waiter.until(lambda: waiter.loaded)
    assert waiter.looks == 2


async def test_a_wait_can_be_cancelled_and_replaced(machine: Experience) -> None:
    waiter = Waiter(machine, 2)
    waiter.loads.start(llama(name="first"))
    await waiter.until(lambda: waiter.looks >= 2)
    waiter.loads.start(llama(name="second"))
    assert waiter.loads.waiting is not None
    assert waiter.loads.waiting.model.name == "second"
    waiter.loads.cancel()
    looks = waiter.looks
    for _ in range(20):
        await asyncio.sleep(0)
    assert waiter.looks <= looks + 1
    assert (waiter.loaded, waiter.loads.waiting) == ([], None)


async def test_waiting_for_what_cannot_run_ends_with_the_reason(machine: Experience) -> None:
    waiter = Waiter(machine, 22)
    waiter.loads.start(llama(quant=QuantSpec(method="gptq", bits=4, group_size=128, checkpoint_format="odd")))
    await waiter.until(lambda: waiter.loads.waiting is None)
    (notice,) = [fact for fact in waiter.facts if isinstance(fact, Notice)]
    assert "odd" in notice.report.detail
    assert waiter.loaded == []
