"""Full memory: what allocators say, what the user is told, and that the engine lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.rig import Rig, asking
from quantchat.engine import protocol as p
from quantchat.errors import GenerationError, LoadError

pytestmark = pytest.mark.engine
GIB = 1024**3

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 23.68 GiB of which 512.00 MiB is "
    "free. Including non-PyTorch memory, this process has 22.91 GiB memory in use. Of the allocated memory 21.00 GiB "
    "is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:131] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture(scope="module")
def memory():
    from quantchat.engine import memory, quiet

    quiet.set_environment()
    return memory


def test_torchs_words_are_read(memory) -> None:
    found = memory.parse_shortage(CUDA)
    assert (found.wanted, found.free, found.gpu) == (2 * GIB, GIB // 2, 1)
    found = memory.parse_shortage(CPU)
    assert (found.wanted, found.free, found.gpu) == (4 * 1024 * GIB, None, None)
    assert memory.parse_shortage("something else").sentence() == ""


def test_a_full_gpu_is_named_with_what_is_missing_and_the_setting_that_helps(memory) -> None:
    import torch

    error = torch.OutOfMemoryError(CUDA)
    assert memory.is_out_of_memory(error)
    loading = memory.out_of_memory("cuda:0", LoadError, error).report
    assert loading.title == "The GPU cuda:1 ran out of memory"
    assert "asked for 2.0 GiB, 512 MiB were free: 1.5 GiB are missing" in loading.detail
    assert "placement" in loading.remedy
    answering = memory.out_of_memory("cuda:0", GenerationError, error).report
    assert "kv_cache_gib" in answering.remedy
    assert "chat goes on" in answering.remedy


def test_a_real_refusal_of_the_cpu_allocator_is_understood(memory) -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)
    report = memory.out_of_memory("cpu", GenerationError, caught.value).report
    assert "This machine (cpu)" in report.title
    assert "1024.0 TiB" in report.detail


STARVED = """
import resource
from pathlib import Path
from quantchat.engine import quiet
quiet.set_environment()
quiet.silence()
import torch
from quantchat.engine.building import blamed
from quantchat.domain.kernels import Plan
from quantchat.errors import LoadError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), used + (1 << 29)))
try:
    with blamed(None, Plan(), "cpu"):
        torch.ones(1 << 28)
except LoadError as error:
    report = error.report
    print(report.code, report.title, report.detail, report.remedy, sep=" | ")
"""


def test_a_load_without_memory_is_explained() -> None:
    """In a child whose address space is limited: the limit holds for good."""
    command = [sys.executable, "-c", STARVED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr[-2000:]
    code, title, detail, remedy = done.stdout.strip().split(" | ")
    assert code == "out-of-memory"
    assert "This machine (cpu) ran out of memory" in title
    assert "1.0 GiB" in detail
    assert "smaller model" in remedy


def test_an_answer_without_memory_fails_alone(gptq: Rig, monkeypatch) -> None:
    import torch

    from quantchat.engine.forward import Forward

    original = Forward.__call__

    def greedy(self, *arguments, **options):
        torch.empty(1 << 50, dtype=torch.uint8)

    monkeypatch.setattr(Forward, "__call__", greedy)
    failed = gptq.answer(asking())[1]
    assert isinstance(failed, p.Failed)
    assert failed.error.code == "out-of-memory"
    assert "1024.0 TiB" in failed.error.detail
    monkeypatch.setattr(Forward, "__call__", original)
    assert isinstance(gptq.answer(asking())[1], p.Finished)
