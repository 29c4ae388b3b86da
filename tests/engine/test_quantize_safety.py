"""Quantize jobs that are stopped, killed or fail: what is said, and that nothing half made is left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from disks import mounted
from engine import quantizing
from engine.quantizing import StopAfter, command, run
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Event, JobFailed, JobFinished, JobModule, JobProgress, Ready, Stop
from quantchat.errors import Cancelled, JobError, StorageError
from quantchat.holding import alone_with
from quantchat.quantize import hooks
from quantchat.quantize.watch import Watch
from quantchat.staging import remove_stale
from unit_demo import files_below

# torch, transformers and gptqmodel warn about themselves and each other at import and at load.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

MOMENTS = 10


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizing.write_calibration(tmp_path_factory.mktemp("calibration"))


def questions(models: Path, calibration: Path, tmp_path: Path, method: str) -> int:
    """Count how often a whole job asks whether it should go on."""
    counter = StopAfter(1 << 30)
    run(command(models / "dense", tmp_path / "whole", calibration, method=method), counter)
    shutil.rmtree(tmp_path / "whole")
    return (1 << 30) - counter.left


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_stop_at_any_moment_leaves_nothing(models: Path, calibration: Path, tmp_path: Path, method: str) -> None:
    total = questions(models, calibration, tmp_path, method)
    assert total > 100
    for moment in sorted(random.Random(7).sample(range(total), MOMENTS // 2)):
        with pytest.raises(Cancelled):
            run(command(models / "dense", tmp_path / "out", calibration, method=method), StopAfter(moment))
        assert files_below(tmp_path) == []
    # Nothing of the hooks is left: the next job does all its work.
    run(command(models / "dense", tmp_path / "out", calibration, method=method))
    assert (tmp_path / "out" / "config.json").is_file()


def test_the_hooks_find_what_they_hook_and_leave_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from gptqmodel.looper.awq_processor import AWQProcessor
    from gptqmodel.looper.loop_processor import LoopProcessor
    from gptqmodel.quantization.gptq import GPTQ
    from gptqmodel.quantization.quantizer import Quantizer

    holders = (AWQProcessor, LoopProcessor, GPTQ, Quantizer)
    before = [dict(vars(holder)) for holder in holders]
    watch = Watch(lambda _: None, quantizing.never)
    with hooks.hooked(watch, hooks.Progress(watch, 2, "gptq"), tmp_path):
        assert [dict(vars(holder)) for holder in holders] != before
    assert [dict(vars(holder)) for holder in holders] == before
    assert [record for record in caplog.records if record.name == hooks.logger.name] == []


def test_a_stop_is_told_as_one_whatever_the_libraries_raise(models: Path, calibration: Path, tmp_path: Path) -> None:
    asked = StopAfter(30)
    with pytest.raises(Cancelled) as caught:
        run(command(models / "dense", tmp_path / "out", calibration), asked)
    assert caught.value.report.code == "cancelled"


def damage(folder: Path, name: str, value: float) -> None:
    """Put a number that is none into one tensor."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[5] = value
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_are_no_numbers_are_named(
    copy_of: Any, calibration: Path, tmp_path: Path, name: str, value: float
) -> None:
    source = copy_of("dense")
    damage(source, name, value)
    with pytest.raises(JobError, match=f"{name} holds 1 values"):
        run(command(source, tmp_path / "out", calibration))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_numbers_that_are_lost_on_the_way_fail_the_job(
    copy_of: Any, calibration: Path, tmp_path: Path, method: str
) -> None:
    """Finite weights can overflow: GPTQModel would round them and tell an error of zero."""
    source = copy_of("dense")
    damage(source, "model.layers.0.self_attn.v_proj.weight", 3e38)
    with pytest.raises(JobError, match="no finite numbers"):
        run(command(source, tmp_path / "out", calibration, method=method))
    assert [name for name in files_below(tmp_path) if name.startswith((".", "out"))] == []


def test_a_source_that_is_quantized_already_is_refused(models: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="quantized already"):
        run(command(models / "gptq", tmp_path / "out", calibration))
    assert files_below(tmp_path) == []


def unreadable(source: Path) -> str:
    """Root may read everything: a folder in the place of the file is refused to all."""
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").mkdir()
    return "cannot be read"


def cut_short(source: Path) -> str:
    with open(source / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    return "cannot be read"


def without_config(source: Path) -> str:
    (source / "config.json").unlink()
    return "cannot be read"


def with_broken_config(source: Path) -> str:
    (source / "config.json").write_text('{"model_type": "llama",')
    return "not in order"


def of_an_unknown_kind(source: Path) -> str:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "nobodys"}))
    return "GPTQModel cannot read this model.*architecture"


def gone(source: Path) -> str:
    shutil.rmtree(source)
    return "is not there"


@pytest.mark.parametrize("spoil", [unreadable, cut_short, without_config, with_broken_config, of_an_unknown_kind, gone])
def test_a_source_that_cannot_be_read_is_named(
    spoil: Callable[[Path], str], copy_of: Any, calibration: Path, tmp_path: Path
) -> None:
    source = copy_of("dense")
    words = spoil(source)
    with pytest.raises(JobError, match=words):
        run(command(source, tmp_path / "out", calibration))
    assert [name for name in files_below(tmp_path) if name.startswith((".", "out"))] == []


def test_a_source_that_vanishes_while_it_is_read_is_told_as_gone(
    copy_of: Any, calibration: Path, tmp_path: Path
) -> None:
    source = copy_of("dense")

    def vanish() -> bool:
        shutil.rmtree(source, ignore_errors=True)
        return False

    with pytest.raises(JobError, match=r"is gone|is not there"):
        run(command(source, tmp_path / "out", calibration), vanish)


def own_copy(models: Path, folder: Path) -> Path:
    """A model that no other test and no other program has open."""
    return Path(shutil.copytree(models / "dense", folder / "dense"))


def test_the_source_cannot_be_deleted_meanwhile(models: Path, calibration: Path, tmp_path: Path) -> None:
    source, alone = own_copy(models, tmp_path), set[bool]()

    def look() -> bool:
        with alone_with(source) as free:
            alone.add(free)
        return False

    run(command(source, tmp_path / "out", calibration), look)
    # The first question comes before the job has opened anything.
    assert alone == {True, False}
    with alone_with(source) as free:
        assert free


def test_a_source_that_is_being_deleted_is_refused(models: Path, calibration: Path, tmp_path: Path) -> None:
    source = own_copy(models, tmp_path)
    before = files_below(tmp_path)
    with alone_with(source), pytest.raises(JobError, match="being deleted"):
        run(command(source, tmp_path / "out", calibration))
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("size", ["64k", "400k"])
def test_a_full_disk_is_told_and_left_empty(models: Path, calibration: Path, tmp_path: Path, size: str) -> None:
    with mounted(tmp_path / "disk", f"size={size}"):
        with pytest.raises(StorageError, match="No space left"):
            run(command(models / "dense", tmp_path / "disk" / "out", calibration))
        assert files_below(tmp_path / "disk") == []


# In engine processes of their own, as the program does it


class Process:
    """An engine process with a job, and what it tells."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Event | EngineExited] = asyncio.Queue()
        self.client = EngineClient(self._arrived.put_nowait)

    async def until(self, ready: Callable[[Event | EngineExited], bool]) -> Event | EngineExited:
        """Wait for an event."""
        async with asyncio.timeout(120):
            while not ready(event := await self._arrived.get()):
                pass
        return event


def is_end(event: Event | EngineExited) -> bool:
    return isinstance(event, JobFinished | JobFailed | EngineExited)


async def test_an_engine_process_stops_jobs_and_what_is_left_of_a_killed_one_is_removed(
    models: Path, calibration: Path, tmp_path: Path
) -> None:
    engine = Process()
    await engine.client.start()
    job = command(models / "dense", tmp_path / "out", calibration)
    await engine.until(lambda event: isinstance(event, Ready))
    for steps in (1, 9, 20):
        engine.client.send(job)
        for _ in range(steps):
            await engine.until(lambda event: isinstance(event, JobProgress | JobModule))
        engine.client.send(Stop(turn="q"))
        event = await engine.until(is_end)
        assert isinstance(event, JobFailed)
        assert event.error.code == "cancelled"
        assert files_below(tmp_path) == []
    engine.client.send(job)
    await engine.until(lambda event: isinstance(event, JobModule))
    assert engine.client.pid is not None
    os.kill(engine.client.pid, signal.SIGKILL)
    await engine.until(lambda event: isinstance(event, EngineExited))
    await engine.client.close()
    left = files_below(tmp_path)
    assert left
    assert all(name.startswith(".out.partial-") for name in left)
    remove_stale(tmp_path / "out")
    assert files_below(tmp_path) == []
