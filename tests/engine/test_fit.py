"""Predicted bytes against what real engine processes hold on the CPU, and predicted caches against real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from demo_model import HOME, demo_model
from engine import zoo
from engine.repacked import as_awq
from gpu.checkpoints import Recipe, write
from gpu.process import EngineProcess
from quantchat.catalog.attention import read_attention
from quantchat.catalog.fit import Prediction, Setting, predict
from quantchat.catalog.reader import read_model
from quantchat.catalog.shape import read_shape
from quantchat.domain.kernel_table import CPU_EXTENSION, TABLE
from quantchat.domain.memory import MIB, cache_bytes
from quantchat.domain.models import ModelInfo
from quantchat.engine import protocol as p
from quantchat.hardware.processor import has_avx512_bf16
from quantchat.services.experience import Experience, label
from quantchat.store.measured import Measured
from quantchat.toolchain import built_extensions

pytestmark = pytest.mark.engine
SLACK, SHARE = 30 * MIB, 0.05
"""Of what was measured, whichever is larger."""
KERNELS = {kernel.name: kernel for kernel in TABLE if kernel.device == "cpu"}
WIDE = {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4}
VOCABULARY = 4096
ALL = pytest.mark.skipif("QUANTCHAT_TEST_FITS" not in os.environ, reason="minutes; set QUANTCHAT_TEST_FITS")
ARCHITECTURES = (
    "qwen3", "gemma3", "olmoe", "qwen3_next", *(pytest.param(kind, marks=ALL) for kind in ("llama", "phi3", "mistral")),
)  # fmt: skip
PACKED = Recipe("gptq", layers=10, hidden=1024, intermediate=3072, heads=16, kv_heads=4, vocabulary=VOCABULARY,
                group_size=64)  # fmt: skip
AWQ = replace(PACKED, name="awq", method="awq", sym=False)
WORDS = "All that can be counted will be counted again tomorrow. "


@pytest.fixture(scope="module")
def smol() -> Path:
    demo_model()
    return HOME


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], ModelInfo]:
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[Recipe, ModelInfo] = {}

    def get(recipe: Recipe) -> ModelInfo:
        if recipe not in made:
            made[recipe] = read_model(write(recipe, folder / recipe.name))
        return made[recipe]

    return get


def write_dense(kind: str, folder: Path) -> ModelInfo:
    """Write a random model of an architecture, a hundred megabytes of it, so that a wrong rule shows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from engine.tiny import make_tokenizer

    model_type, arguments = zoo.RECIPES[kind]
    wide = {name: value for name, value in WIDE.items() if name in arguments}
    config = AutoConfig.for_model(model_type, **arguments | wide, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1,
                                  pad_token_id=0)  # fmt: skip
    torch.manual_seed(zoo.SEED)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return read_model(folder)


async def predicted_and_loaded(
    model: ModelInfo, folder: Path, kernel: str | None = None
) -> tuple[Prediction, p.LoadReport]:
    """Predict by the idle process before a load, and load."""
    assert not model.errors, model.problems
    async with EngineProcess(folder) as engine:
        idle = psutil.Process(engine.client.pid).memory_info().rss
        setting = Setting(kernel=KERNELS[kernel] if kernel else None, runtime=idle)
        found = predict(model, setting)
        loaded = await engine.load(model, "cpu", kernel=kernel)
        assert isinstance(loaded, p.Loaded), loaded
    return found, loaded.report


def off(found: Prediction, report: p.LoadReport) -> str:
    """How far a prediction is off, in words; empty if it is near enough."""
    apart = found.predicted - report.device_bytes
    near = abs(apart) <= max(SLACK, SHARE * report.device_bytes)
    return "" if near else f"{apart / MIB:+.0f} MiB: {found}, measured {report.device_bytes / MIB:.0f} MiB"


def runs_here(kernel: str) -> bool:
    """Whether a kernel needs no compiling now."""
    return KERNELS[kernel].extension is None or (has_avx512_bf16() and CPU_EXTENSION in built_extensions())


@ALL
async def test_the_kernel_that_is_compiled(smol: Path, tmp_path: Path) -> None:
    kernel = "gptq_torch_cpu_avx512"
    if not runs_here(kernel):
        pytest.skip("not compiled on this machine")
    found, report = await predicted_and_loaded(read_model(smol / "SmolLM2-135M-Instruct-GPTQ-4bit"), tmp_path, kernel)
    assert report.kernel == kernel
    assert not off(found, report)


@pytest.mark.parametrize("kernel", ["awq_torch_aten", pytest.param("awq_torch_cpu_avx512", marks=ALL)])
async def test_the_demo_model_as_awq(smol: Path, tmp_path: Path, kernel: str) -> None:
    if not runs_here(kernel):
        pytest.skip("not compiled on this machine")
    model = read_model(as_awq(smol / "SmolLM2-135M-Instruct-GPTQ-4bit", tmp_path / "awq"))
    found, report = await predicted_and_loaded(model, tmp_path, kernel)
    assert report.kernel == kernel
    assert not off(found, report)


@pytest.mark.parametrize(
    ("recipe", "kernel"),
    [
        pytest.param(AWQ, "awq_torch_aten", marks=ALL),
        pytest.param(AWQ, "awq_torch_cpu_avx512", marks=ALL),
        pytest.param(replace(PACKED, name="act-order", desc_act=True), "gptq_torch_aten", marks=ALL),
        pytest.param(replace(PACKED, name="8-bit", bits=8), "gptq_torch_int8", marks=ALL),
    ],
    ids=["awq-aten", "awq-avx512", "act-order", "8-bit"],
)
async def test_packed_weights(checkpoint, tmp_path: Path, recipe: Recipe, kernel: str) -> None:
    if not runs_here(kernel):
        pytest.skip("not compiled on this machine")
    found, report = await predicted_and_loaded(checkpoint(recipe), tmp_path, kernel)
    assert report.kernel == kernel
    assert not off(found, report)


@pytest.mark.parametrize("kind", ARCHITECTURES)
async def test_architectures(tmp_path: Path, kind: str) -> None:
    found, report = await predicted_and_loaded(write_dense(kind, tmp_path / kind), tmp_path)
    assert not off(found, report)
    assert found.weights == pytest.approx(report.weight_bytes, rel=0.01)


async def test_the_demo_model_in_16_bits_and_a_long_prompt(smol: Path, tmp_path: Path) -> None:
    model = read_model(smol / "SmolLM2-135M-Instruct-bf16")
    async with EngineProcess(tmp_path) as engine:
        process = psutil.Process(engine.client.pid)
        setting = Setting(runtime=process.memory_info().rss)
        loaded = await engine.load(model, "cpu")
        assert isinstance(loaded, p.Loaded), loaded
        found = predict(model, setting)
        assert found.weights == pytest.approx(loaded.report.weight_bytes, rel=0.001)
        assert not off(found, loaded.report)
        end = await engine.answer("a", WORDS * 150)
        assert isinstance(end, p.Finished), end
        tokens = end.statistics.prompt_tokens + end.statistics.new_tokens
        held = process.memory_info().rss
    needed = predict(model, setting, tokens).needed
    assert tokens > 1500
    assert abs(needed - held) <= max(2 * SLACK, SHARE * held), (needed / MIB, held / MIB)


async def test_the_demo_model_in_4_bits_is_known_better_once_it_was_loaded(smol: Path, tmp_path: Path) -> None:
    model, kernel = read_model(smol / "SmolLM2-135M-Instruct-GPTQ-4bit"), KERNELS["gptq_torch_aten"]
    experience = Experience(Measured())
    assert experience.setting(model, kernel, 0).loaded is None
    async with EngineProcess(tmp_path) as engine:
        idle = psutil.Process(engine.client.pid).memory_info().rss
        loaded = await engine.load(model, "cpu", kernel=kernel.name)
        assert isinstance(loaded, p.Loaded)
        ready = await engine.wait(p.Ready)
    found = predict(model, Setting(kernel=kernel, runtime=idle))
    assert not off(found, loaded.report)
    assert label(ready.versions) == experience.versions
    experience.learn(model, loaded.report, ready.versions)
    corrected = predict(model, experience.setting(model, kernel, 0))
    assert corrected.loaded == loaded.report.device_bytes
    assert corrected.runtime == loaded.report.idle_bytes > 0


@pytest.mark.parametrize("tokens", [12, 60])
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_caches_hold_what_was_said(kind: str, tokens: int) -> None:
    import torch

    from engine.talk import words
    from quantchat.engine.kvcache import SessionCache

    model = zoo.make(kind)
    config = model.config.to_dict()
    info = ModelInfo(path="/m", name=kind, shape=read_shape(config), attention=read_attention(config))
    cache = SessionCache(model)
    prompt = words(tokens, seed=3)
    cache.reuse(prompt)
    with torch.inference_mode():
        model(input_ids=torch.tensor([prompt]), use_cache=True, **cache.arguments)
    cache.append(prompt)
    held = sum(each.numel() * each.element_size() for each in cache._tensors() if each.is_floating_point())
    assert held == cache_bytes(info, tokens, 4)
