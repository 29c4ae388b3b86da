"""Real engine processes: a crash in a kernel's stage, a build that is broken off, memory after an unload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from quantchat.catalog.reader import read_model
from quantchat.engine import protocol as p
from quantchat.services.facts import Fact, Notice
from quantchat.services.library import Library, Phase
from quantchat.toolchain import compilers

pytestmark = pytest.mark.engine
PATIENCE = 240.0
SLACK = 1.05
"""Of the memory of an engine that never held a model: what two processes of the same kind differ by."""


class Shelf:
    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.events: list[p.Event | p.EngineExited] = []
        self.library = Library(self.facts.append)
        self.library.on_turn_event = self.events.append

    async def until(self, test: Callable[[], object]) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE
        while not test():
            assert asyncio.get_running_loop().time() < end, (self.library.loading, self.facts[-3:])
            assert not self.dialogs, self.dialogs
            await asyncio.sleep(0.01)

    async def ready(self) -> int:
        await self.until(lambda: self.library.ready)
        pid = self.library.engine_pid
        assert pid is not None
        return pid

    @property
    def dialogs(self) -> list[Notice]:
        return [fact for fact in self.facts if isinstance(fact, Notice) and fact.dialog]

    def tree_bytes(self) -> int:
        """Resident bytes of everything that this process started."""
        return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))


@pytest.fixture
async def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shelf]:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
    shelf = Shelf()
    yield shelf
    await shelf.library.close(2.0)


async def test_a_crash_while_a_kernel_runs_ends_with_the_next_kernel(shelf: Shelf, models) -> None:
    await shelf.library.load(read_model(models / "gptq"))
    await shelf.until(lambda: shelf.library.loading and shelf.library.loading.kernel)
    first = await shelf.ready()
    crashed = shelf.library.loading.kernel
    os.kill(first, signal.SIGSEGV)
    await shelf.until(lambda: shelf.library.phase is not Phase.LOADING)
    report = shelf.library.loaded
    assert report is not None, shelf.facts
    assert report.kernel != crashed
    assert {refusal.kernel: refusal.reason for refusal in report.refusals}[crashed].endswith("(signal SIGSEGV)")
    assert await shelf.ready() != first
    assert not shelf.dialogs


async def test_memory_returns_to_what_it_was_before_the_load(shelf: Shelf, models) -> None:
    await shelf.library.start_engine()
    await shelf.ready()
    await shelf.until(lambda: shelf.tree_bytes() > 0)
    before = shelf.tree_bytes()
    await shelf.library.load(read_model(models / "gptq"))
    await shelf.until(lambda: shelf.library.loaded)
    held_by = await shelf.ready()
    loaded = shelf.tree_bytes()
    await shelf.library.unload()
    assert not psutil.pid_exists(held_by)
    assert await shelf.ready() != held_by
    assert before < loaded
    assert shelf.tree_bytes() < before * SLACK


def compiles_here() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and "avx512_bf16" in cpu.read_text() and compilers()[0]


@pytest.mark.skipif(not compiles_here(), reason="nothing is compiled for this CPU")
async def test_breaking_off_a_build_leaves_no_compiler(
    shelf: Shelf, models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTQMODEL_TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    await shelf.library.load(read_model(models / "gptq"))
    await shelf.until(lambda: shelf.library.loading and shelf.library.loading.stage == "building kernel")
    assert "once" in shelf.library.loading.note
    engine = psutil.Process(await shelf.ready())
    await shelf.until(lambda: compiling(engine))
    started = [engine, *engine.children(recursive=True)]
    await shelf.library.unload()
    psutil.wait_procs(started, timeout=2)
    assert not [process for process in started if process.is_running()]
    assert shelf.library.phase is Phase.EMPTY


def compiling(engine: psutil.Process) -> bool:
    names = set()
    for child in engine.children(recursive=True):
        # Compilers come and go.
        with contextlib.suppress(psutil.NoSuchProcess):
            names.add(child.name())
    return bool(names & {"cc1plus", "clang++", "clang"})
