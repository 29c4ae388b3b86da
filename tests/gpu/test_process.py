"""What engine processes leave on the card: unloads, ends in mid-answer, full memory, missing compilers."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from gpu.conftest import DEVICE, RECIPES
from gpu.process import SLACK, EngineProcess, until, used_bytes
from quantchat.engine import memory
from quantchat.engine import protocol as p

LONG = "All that can be counted will be counted again tomorrow. "
LEFT_FREE = 96 * 2**20
CPU = not DEVICE.startswith("cuda")


@pytest.fixture
def baseline() -> int:
    memory.give_back()
    return used_bytes(DEVICE)


@pytest.fixture
def plain(checkpoint):
    return checkpoint(RECIPES["plain"])


async def test_an_ended_engine_leaves_nothing_on_the_card(plain, tmp_path, baseline):
    async with EngineProcess(tmp_path) as engine:
        loaded = await engine.load(plain, DEVICE)
        assert isinstance(loaded, p.Loaded), loaded
        assert loaded.report.decoding == "graph" or loaded.report.decoding_reason or CPU
        assert CPU or used_bytes(DEVICE) >= baseline + loaded.report.weight_bytes
        end = await engine.answer("a", "Count.")
        assert isinstance(end, p.Finished), end
        engine.client.send(p.Unload(request="u"))
        freed = (await engine.wait(p.Unloaded)).freed
        assert CPU or freed >= loaded.report.weight_bytes
    assert engine.gone
    await until(lambda: used_bytes(DEVICE) <= baseline + SLACK)


async def test_quitting_in_mid_answer_ends_the_process_and_frees_the_card(plain, tmp_path, baseline):
    async with EngineProcess(tmp_path) as engine:
        assert isinstance(await engine.load(plain, DEVICE), p.Loaded)
        engine.ask("a", "Count.", max_new_tokens=RECIPES["plain"].window - 100)
        await engine.wait(p.Prefill, matches=lambda event: event.done > 0)
    ends = [event for event in engine.events if isinstance(event, p.Finished | p.Failed)]
    assert all(isinstance(end, p.Finished) and end.reason == "stopped" for end in ends), ends
    assert engine.gone
    await until(lambda: used_bytes(DEVICE) <= baseline + SLACK)


async def test_a_prompt_longer_than_the_window_fails_and_the_next_one_is_answered(plain, tmp_path):
    async with EngineProcess(tmp_path) as engine:
        assert isinstance(await engine.load(plain, DEVICE), p.Loaded)
        end = await engine.answer("long", LONG * RECIPES["plain"].window)
        assert isinstance(end, p.Failed), end
        assert isinstance(await engine.answer("short", "Count."), p.Finished)


@pytest.mark.skipif(CPU, reason="fills the memory of a GPU")
async def test_a_full_card_fails_the_answer_and_the_chat_goes_on(plain, tmp_path):
    async with EngineProcess(tmp_path) as engine:
        assert isinstance(await engine.load(plain, DEVICE), p.Loaded)
        assert isinstance(await engine.answer("before", "Count."), p.Finished)
        memory.give_back()
        free, _ = torch.cuda.mem_get_info(DEVICE)
        ballast = torch.empty(free - LEFT_FREE, dtype=torch.uint8, device=DEVICE)
        # Near the window's end, whatever a token of the tokenizer holds: it has at least one byte.
        end = await engine.answer("during", LONG * (RECIPES["plain"].window // 2 // len(LONG)))
        assert isinstance(end, p.Failed), end
        assert end.error.code == "out-of-memory"
        del ballast
        memory.give_back()
        assert isinstance(await engine.answer("after", "Count."), p.Finished)


async def test_without_a_compiler_the_next_kernel_loads(plain, tmp_path):
    hidden = {"GPTQMODEL_TORCH_EXTENSIONS_DIR": str(tmp_path / "none"), "CUDA_HOME": str(tmp_path / "none")}
    hidden["PATH"] = os.pathsep.join(folder for folder in os.get_exec_path() if not _compiles(folder))
    async with EngineProcess(tmp_path, hidden) as engine:
        loaded = await engine.load(plain, DEVICE)
        assert isinstance(loaded, p.Loaded), loaded
        assert loaded.report.kernel == ("gptq_torch_aten" if CPU else "gptq_triton")
        assert any("compiler" in refusal.reason or "nvcc" in refusal.reason for refusal in loaded.report.refusals)
        assert isinstance(await engine.answer("a", "Count."), p.Finished)


def _compiles(folder: str) -> bool:
    """Triton needs its C compiler where nvcc is what is hidden."""
    names = ("g++", "c++", "clang++", "ninja") if CPU else ("nvcc",)
    return any(shutil.which(name, path=folder) for name in names)
