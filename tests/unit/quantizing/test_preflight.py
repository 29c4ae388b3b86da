"""What a quantization takes, and what stands against it, before any weight is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from quantchat import paths
from quantchat.catalog.reader import read_model
from quantchat.domain.memory import GIB
from quantchat.domain.quantizing import CalibrationChoice, Recipe
from quantchat.errors import ModelError, StorageError, UsageError
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.experience import Experience
from quantchat.services.memory import MemoryView
from quantchat.services.quantizing import checks, room
from quantchat.services.quantizing.plan import Plan, Preflight
from quantchat.services.quantizing.preflight import examine
from quantchat.store.measured import Measured
from unit.catalog.corpus import build
from unit.catalog.model_folders import EMBEDDING, make_dense, make_gptq, write_json, write_safetensors


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def view(*gpus: GpuDevice, free: float = 32, engine: float = 0) -> MemoryView:
    seen = GpuSnapshot(gpus) if gpus else NotAvailable("none")
    host = HostMemory(int(64 * GIB), int((64 - free) * GIB), int(free * GIB))
    return MemoryView(gpus=seen, host=host, engine_host_bytes=int(engine * GIB), experience=Experience(Measured()))


async def looked_at(source: Path, seen: MemoryView | None = None, **plan: object) -> Preflight:
    return await examine(Plan(source=str(source), **plan), seen or view())


def codes(preflight: Preflight) -> list[str]:
    return [problem.code for problem in preflight.problems]


async def test_a_sound_plan_is_filled_in(tmp_path: Path) -> None:
    source = make_dense(tmp_path / "Tiny-Chat-bf16")
    found = await looked_at(source)
    assert found.possible
    assert found.plan.recipe.group_size == 64
    assert found.output == paths.models_dir() / "Tiny-Chat-GPTQ-4bit-g64"
    assert found.matrices == 1
    assert found.kernel
    assert found.device == "cpu"
    assert 0 < found.result < found.disk
    assert found.seconds > 0
    assert found.refusal() is None


async def test_an_open_group_size_takes_whole_columns_where_nothing_divides(tmp_path: Path) -> None:
    source = build("dense-llama3.1-8b-sharded", tmp_path)
    assert (await looked_at(source)).plan.recipe.group_size == 128
    odd = make_dense(tmp_path / "odd")
    layer = {"model.layers.0.mlp.up_proj.weight": ("BF16", (128, 72))}
    write_safetensors(odd / "model.safetensors", {**EMBEDDING, **layer}, {"format": "pt"})
    assert (await looked_at(odd)).plan.recipe.group_size == -1


async def test_a_group_size_that_does_not_divide_names_the_matrices(tmp_path: Path) -> None:
    found = await looked_at(make_dense(tmp_path / "m"), recipe=Recipe(group_size=48))
    (fault,) = found.errors
    assert fault.code == "group-size"
    assert "mlp.up_proj 64" in fault.cause
    assert "64, 32 or -1" in fault.remedy
    assert isinstance(found.refusal(), UsageError)


@pytest.mark.parametrize("recipe", [Recipe(group_size=48), Recipe(bits=5), Recipe(checkpoint_format="gemm")])
async def test_of_what_cannot_be_made_no_kernel_is_told(tmp_path: Path, recipe: Recipe) -> None:
    found = await looked_at(make_dense(tmp_path / "m"), recipe=recipe)
    assert len(found.problems) == 1
    assert found.kernel == ""


async def test_of_a_text_that_is_not_there_it_is_not_said_that_it_is_short(tmp_path: Path) -> None:
    calibration = CalibrationChoice(path=str(tmp_path / "none.jsonl"))
    assert codes(await looked_at(make_dense(tmp_path / "m"), calibration=calibration)) == ["calibration"]


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("gptq-smollm2-no-g-idx", "quantized"),
        ("bnb-llama3.2-1b-nf4", "quantized"),
        ("embedding-bge-small", "embedding-model"),
        ("triage-no-weights", "weights-missing"),
        ("triage-pickles-only", "pickle-only"),
        ("gguf-split", "gguf-parts"),
        ("gguf-cut-off", "weights-truncated"),
        ("gguf-embedding", "embedding-model"),
        ("lora-adapter", "adapter-base"),
    ],
)
async def test_what_cannot_be_a_source_says_why(tmp_path: Path, case: str, code: str) -> None:
    found = await looked_at(build(case, tmp_path))
    refusal = found.refusal()
    assert code in [problem.code for problem in found.errors]
    assert refusal is not None
    assert refusal.exit_code in (UsageError.exit_code, ModelError.exit_code)


async def test_a_gguf_file_is_unpacked_first(tmp_path: Path) -> None:
    found = await looked_at(build("gguf-tinyllama-q8-0", tmp_path))
    assert found.possible
    assert codes(found) == ["gguf-rounded"]
    assert found.model is not None
    plain = found.model.parameters * 2
    assert found.disk > found.result + plain
    assert found.plan.recipe.group_size == 128


async def test_an_output_that_is_there_already(tmp_path: Path) -> None:
    source = make_dense(tmp_path / "m")
    there = tmp_path / "there"
    there.mkdir()
    found = await looked_at(source, output=there)
    assert [problem.code for problem in found.errors] == ["output-exists"]
    assert isinstance(found.refusal(), StorageError)


@pytest.mark.parametrize(
    ("place", "code"),
    [("hub/models--a--b/x", "output-in-cache"), ("m/inside", "output-in-source"), ("file/x", "output-place")],
)
async def test_places_where_no_model_may_be_made(tmp_path: Path, place: str, code: str) -> None:
    source = make_dense(tmp_path / "m")
    (tmp_path / "file").write_text("")
    found = await looked_at(source, output=tmp_path / place)
    assert [problem.code for problem in found.errors] == [code]


async def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_dense(tmp_path / "m")
    # The superuser may write everywhere.
    monkeypatch.setattr(checks.os, "access", lambda path, mode: not (mode & os.W_OK))
    found = await looked_at(source, output=tmp_path / "deep" / "out")
    assert [problem.code for problem in found.errors] == ["output-place"]


async def test_an_output_that_another_process_makes(tmp_path: Path) -> None:
    source = make_dense(tmp_path / "m")
    (tmp_path / f".out.partial-{os.getppid()}").mkdir()
    (tmp_path / ".gone.partial-4194305").mkdir()
    assert codes(await looked_at(source, output=tmp_path / "out")) == ["output-busy"]
    assert codes(await looked_at(source, output=tmp_path / "gone")) == []


async def test_an_output_that_no_scan_would_find_is_warned_of(tmp_path: Path) -> None:
    plan = Plan(source=str(make_dense(tmp_path / "m")), output=tmp_path / "out")
    found = await examine(plan, view(), (), (paths.models_dir(),))
    assert codes(found) == ["output-unseen"]
    assert found.possible
    assert codes(await examine(plan, view(), (), (tmp_path,))) == []
    ours = msgspec.structs.replace(plan, output=None)
    assert not paths.models_dir().exists()
    assert codes(await examine(ours, view(), (), (tmp_path / "elsewhere",))) == []


@pytest.mark.parametrize(
    ("name", "why"), [("x" * 239, "longer than 238 bytes"), ("ä" * 120, "longer"), ("\udcff", "UTF-8")]
)
async def test_names_that_no_folder_can_have(tmp_path: Path, name: str, why: str) -> None:
    found = await looked_at(make_dense(tmp_path / "m"), output=tmp_path / name)
    assert [problem.code for problem in found.errors] == ["output-name"]
    assert why in found.errors[0].cause
    assert isinstance(found.refusal(), StorageError)


async def test_the_output_is_named_by_its_last_part(tmp_path: Path) -> None:
    found = await looked_at(make_dense(tmp_path / "m"), output=tmp_path / "not-there" / ".." / "out")
    assert found.output == tmp_path / "out"
    assert found.possible
    above = await looked_at(tmp_path / "m", output=tmp_path / "not-there" / "..")
    assert [problem.code for problem in above.errors] == ["output-exists"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "not there"), ("file/x", "not there"), ("x" * 300, "name too long"), ("folder", "is a folder"),
     ("pipe", "is a pipe"), ("file", "is empty")],
)  # fmt: skip
async def test_calibration_files_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    found = await looked_at(make_dense(tmp_path / "m"), calibration=CalibrationChoice(path=str(tmp_path / name)))
    assert [problem.code for problem in found.errors] == ["calibration"]
    assert why in found.errors[0].cause.lower()


@pytest.mark.parametrize("length", [0, 10])
async def test_samples_that_are_too_short_to_be_used(tmp_path: Path, length: int) -> None:
    for recipe in (Recipe(), Recipe(method="awq")):
        source = make_dense(tmp_path / recipe.method)
        found = await looked_at(source, recipe=recipe, calibration=CalibrationChoice(length=length))
        assert [problem.code for problem in found.errors] == ["calibration-length"]
        assert isinstance(found.refusal(), UsageError)


async def test_text_that_is_too_little_for_the_matrices(tmp_path: Path) -> None:
    source = build("dense-llama3.1-8b-sharded", tmp_path)
    text = tmp_path / "text.md"
    text.write_text("Word after word. " * 100)
    assert codes(await looked_at(source, calibration=CalibrationChoice(path=str(text)))) == ["little-text"]
    assert codes(await looked_at(source, calibration=CalibrationChoice(samples=4))) == ["little-text"]
    assert codes(await looked_at(source)) == []


async def test_memory_that_is_not_there(tmp_path: Path) -> None:
    source = build("dense-llama3.1-8b-sharded", tmp_path)
    assert (await looked_at(source)).possible
    small = await looked_at(source, view(free=8))
    assert [problem.code for problem in small.errors] == ["memory"]
    assert (await looked_at(source, view(free=8), force=True)).possible
    held = await looked_at(source, view(free=8, engine=16))
    assert [problem.code for problem in held.errors] == ["memory-held"]
    assert "Unload" in held.errors[0].remedy


async def test_with_a_gpu_both_memories_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    source = build("dense-llama3.1-8b-sharded", tmp_path)
    card = GpuDevice(index=0, name="GPU", total=24 * GIB, free=22 * GIB, capability=(8, 6))
    found = await looked_at(source, view(card))
    assert found.possible
    assert found.device == "cuda:0"
    assert found.memory < found.host_memory
    cpu = await looked_at(source, view())
    assert found.seconds < cpu.seconds
    full = msgspec.structs.replace(card, free=GIB // 2, engine_bytes=20 * GIB)
    assert "memory-held" in codes(await looked_at(source, view(full)))


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_disk", lambda output: 1024)
    found = await looked_at(make_dense(tmp_path / "m"))
    assert [problem.code for problem in found.errors] == ["disk"]
    assert isinstance(found.refusal(), StorageError)


async def test_settings_that_do_not_suit_this_machine_are_warned_of(tmp_path: Path) -> None:
    found = await looked_at(make_dense(tmp_path / "m"), recipe=Recipe(bits=2))
    assert found.possible
    assert codes(found) == ["few-bits", "kernel-slow"]


async def test_a_head_that_is_the_embedding_stays_as_it_is(tmp_path: Path) -> None:
    source = make_dense(tmp_path / "m", tie_word_embeddings=True)
    assert "lm-head" in codes(await looked_at(source, recipe=Recipe(lm_head=True)))


async def test_types_that_the_quantizer_does_not_know_are_warned_of(tmp_path: Path) -> None:
    found = await looked_at(make_dense(tmp_path / "m", model_type="cpmant"))
    assert "type-unknown" in codes(found)


async def test_an_adapter_is_merged_into_its_base(tmp_path: Path) -> None:
    base = make_dense(tmp_path / "Llama-2-7b-chat-hf")
    adapter = build("lora-adapter", tmp_path)
    models = (read_model(make_gptq(tmp_path / "other")), read_model(base))
    found = await examine(Plan(source=str(adapter)), view(), models)
    assert found.possible, found.problems
    assert found.plan.source == str(base)
    assert found.plan.adapter == str(adapter)
    assert "lora-adapter" in found.output.name
    named = await looked_at(base, adapter=str(adapter))
    assert named.output == found.output


async def test_an_adapter_that_cannot_be_merged(tmp_path: Path) -> None:
    base = make_dense(tmp_path / "base")
    adapter = build("lora-adapter", tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    assert "missing" in (await looked_at(base, adapter=str(adapter))).errors[0].cause
    (adapter / "adapter_model.bin").write_bytes(b"a pickle")
    assert "a pickle" in (await looked_at(base, adapter=str(adapter))).errors[0].cause
    assert "adapter" in codes(await looked_at(base, adapter=str(adapter)))
    assert isinstance((await looked_at(base, adapter=str(adapter))).refusal(), UsageError)
    write_json(adapter / "adapter_config.json", {"peft_type": "IA3"})
    assert "not LoRA" in (await looked_at(base, adapter=str(adapter))).errors[0].cause
    shutil.rmtree(adapter)
    assert not (await looked_at(base, adapter=str(adapter))).possible


async def test_an_adapter_without_the_package_that_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter = make_dense(tmp_path / "base"), build("lora-adapter", tmp_path)
    monkeypatch.setattr(checks.util, "find_spec", lambda name: None)
    (fault,) = (await looked_at(base, adapter=str(adapter))).errors
    assert "pip install 'quantchat[lora]'" in fault.remedy
