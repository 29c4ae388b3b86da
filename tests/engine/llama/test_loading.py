"""What a load tells: its report, why a file does not load, devices that are not there; split files."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.llama import tiny_gguf
from engine.rig import Rig
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.engine.backends.llama import layout, loading
from quantchat.engine.backends.llama.faults import load_error
from quantchat.engine.backends.llama.library import Gpu

GIB = 1024**3


def load(rig: Rig, model: ModelInfo, **options) -> p.Loaded | p.LoadFailed:
    rig.worker.submit(p.Load(request=rig.name(), model=model, **options))
    return rig.wait(p.Loaded, p.LoadFailed)


def test_the_report_says_what_runs_the_model(llama: Rig, tiny: Path) -> None:
    report = llama.load(tiny).report
    assert (report.kernel, report.device, report.dtype, report.template) == ("llama.cpp", "cpu", "F32", "model")
    assert report.context_window == tiny_gguf.WINDOW
    assert report.kv_token_bytes == 2 * tiny_gguf.LAYERS * tiny_gguf.KV_HEADS * tiny_gguf.HEAD * 2
    assert report.weight_bytes == read_model(tiny).weight_bytes
    assert report.device_bytes > report.idle_bytes > 0
    assert report.warnings == ()
    assert {"reading weights", "warming up"} <= set(report.seconds)


def test_a_load_tells_how_far_it_is(llama: Rig, tiny: Path) -> None:
    llama.events.clear()
    llama.load(tiny)
    steps = [event for event in llama.events if isinstance(event, p.LoadProgress)]
    weights = read_model(tiny).weight_bytes
    assert any(step.done == step.total == weights and step.unit == "bytes" for step in steps)


def test_fewer_cells_than_the_window_are_told(llama: Rig, tiny: Path) -> None:
    model = read_model(tiny)
    report = load(llama, model, kv_budget=256 * 256).report
    assert report.context_window == 256
    assert "256 of the 512 tokens" in report.warnings[0]


@pytest.mark.parametrize("part", [0.5, 0.99], ids=["half", "nearly all"])
def test_a_file_that_was_cut_off_is_damaged(llama: Rig, tiny: Path, tmp_path: Path, part: float) -> None:
    whole = read_model(tiny)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[: int(tiny.stat().st_size * part)])
    failed = load(llama, msgspec.structs.replace(whole, path=str(cut)))
    assert isinstance(failed, p.LoadFailed)
    assert failed.error.code == "damaged"
    assert "again" in failed.error.remedy


def test_an_architecture_that_llama_cpp_does_not_know_is_named(llama: Rig, tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "new.gguf", architecture="someday")
    failed = load(llama, read_model(path))
    assert failed.error.code == "architecture"
    assert "someday" in failed.error.detail
    assert "pip install --upgrade llama-cpp-python" in failed.error.remedy


def test_a_file_that_is_gone_cannot_be_read(llama: Rig, tiny: Path, tmp_path: Path) -> None:
    failed = load(llama, msgspec.structs.replace(read_model(tiny), path=str(tmp_path / "gone.gguf")))
    assert failed.error.code == "file"


def test_weights_that_are_no_numbers_do_not_count_as_loaded(
    llama: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_gguf.tensors

    def broken(random: np.random.Generator) -> dict:
        return {name: tensor * np.float32(np.nan) for name, tensor in whole(random).items()}

    monkeypatch.setattr(tiny_gguf, "tensors", broken)
    failed = load(llama, read_model(tiny_gguf.write(tmp_path / "nan.gguf")))
    assert isinstance(failed, p.LoadFailed)
    assert "no numbers" in failed.error.title


def test_a_failed_load_leaves_the_engine_ready(llama: Rig, tiny: Path, tmp_path: Path) -> None:
    load(llama, msgspec.structs.replace(read_model(tiny), path=str(tmp_path / "gone.gguf")))
    llama.load(tiny)
    assert isinstance(llama.answer()[1], p.Finished)


def test_a_device_that_llama_cpp_does_not_have_is_refused(llama: Rig, tiny: Path) -> None:
    failed = llama.load(tiny, device="cuda:7")
    assert failed.error.code == "device"
    assert "GGML_CUDA=on" in failed.error.remedy


def test_a_split_file_loads_by_its_first_part(llama: Rig, tmp_path: Path) -> None:
    import gguf

    class Splitting(gguf.GGUFWriter):
        def __init__(self, path: Path, architecture: str) -> None:
            super().__init__(path, architecture, split_max_tensors=8)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny_gguf.gguf, "GGUFWriter", Splitting)
        tiny_gguf.write(tmp_path / "parts.gguf")
    first = min(tmp_path.glob("*.gguf"))
    assert len(list(tmp_path.glob("*.gguf"))) > 1
    assert isinstance(llama.load(first), p.Loaded)
    assert isinstance(llama.answer()[1], p.Finished)


# What the words of the log mean, and where layers go


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("alloc_buffer: allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory", "out-of-memory"),
        ("llama_model_load: error loading model: unable to allocate CPU buffer", "out-of-memory"),
        ("llama_model_load: error loading model: missing tensor 'blk.0.attn_norm.weight'", "damaged"),
        ("error loading model: check_tensor_dims: tensor 'blk.30.attn_norm.weight' not found", "damaged"),
        ("something else", "load"),
        ("", "load"),
    ],
)  # fmt: skip
def test_the_log_tells_why(tiny: Path, said: str, code: str) -> None:
    assert load_error(read_model(tiny), said).report.code == code


def test_a_fault_without_a_name_is_told_by_its_reason(tiny: Path) -> None:
    said = "load: error loading model: nobody foresaw this\nload_from_file: failed to load model"
    assert load_error(read_model(tiny), said).report.detail == "error loading model: nobody foresaw this"


def gpus(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    cards = [Gpu(f"cuda:{place}", place, size, size) for place, size in enumerate(free)]
    monkeypatch.setattr(layout, "gpus", lambda: cards)


def sized(layers: int, layer_bytes: int, window: int) -> ModelInfo:
    """A model with so many layers of this size."""
    whole = layers * layer_bytes + layer_bytes
    shape = {"layers": layers, "kv_heads": 8, "head_size": 128, "hidden_size": 4096}
    return msgspec.convert(
        {
            "path": "/m.gguf", "name": "m", "container": "gguf", "weight_bytes": whole, "context_window": window,
            "shape": shape, "quant": {"method": "gguf"},
        },
        ModelInfo,
    )  # fmt: skip


def laid(model: ModelInfo, **options) -> layout.Layout:
    return layout.lay_out(p.Load(request="r", model=model, **options))


def test_a_gpu_with_room_takes_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 24 * GIB)
    found = laid(sized(32, GIB // 8, 8192))
    assert (found.device, found.layers, found.of, found.only) == ("cuda:0", 33, 33, 0)
    assert found.describe() == ""
    assert found.cells == 8192


def test_a_small_gpu_takes_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 3 * GIB)
    found = laid(sized(32, GIB // 8, 8192))
    assert 0 < found.layers < found.of
    assert f"{found.layers} of 33 layers on cuda:0, the rest on the CPU" == found.describe()
    told = list(loading._warnings(sized(32, GIB // 8, 8192), found, 8192))
    assert any("the CPU computes the rest" in line for line in told)


def test_a_full_gpu_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, GIB // 2)
    found = laid(sized(32, GIB // 8, 8192))
    assert (found.device, found.layers) == ("cpu", 0)


def test_several_gpus_share_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4 * GIB, 4 * GIB)
    found = laid(sized(32, GIB // 8, 8192))
    assert found.only is None
    assert found.describe() == "all layers on cuda:0, cuda:1"


def test_a_long_window_does_not_eat_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 80 * GIB)
    model = sized(32, GIB // 8, 131072)
    found = laid(model)
    assert 4096 <= found.cells < 131072
    assert found.cells * found.token_bytes <= max(2 * GIB, model.weight_bytes // 2)
    assert laid(model, kv_budget=32 * GIB).cells == 131072


def test_a_build_for_the_cpu_on_a_machine_with_a_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    driver = tmp_path / "nvidiactl"
    shutil.copy(tiny, driver)
    monkeypatch.setattr(loading, "NVIDIA", driver)
    monkeypatch.setattr(loading.api, "llama_supports_gpu_offload", lambda: False)
    model = read_model(tiny)
    told = list(loading._warnings(model, laid(model, device="cpu"), tiny_gguf.WINDOW))
    assert "GGML_CUDA=on" in told[0]
