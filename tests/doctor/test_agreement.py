"""A real load, `quantchat models show` and the doctor say the same of a model, with compilers and without any."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from doctor import three_bits
from doctor.rig import COMPILERS, RUN, Seen, clean_env, doctor, only, path_without
from engine import tiny
from quantchat.catalog.reader import read_model
from quantchat.domain.kernels import Host
from quantchat.hardware.processor import has_avx512_bf16
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.models import judge

TESTS = Path(__file__).parents[1]
LOAD = """
import sys
from pathlib import Path
from quantchat.engine import quiet
quiet.set_environment()
import msgspec
from engine.rig import Rig
rig = Rig()
reports = [rig.load(Path(path)).report for path in sys.argv[1:]]
print(msgspec.json.encode(reports).decode(), flush=True)
rig.worker.close(timeout=30)
"""
SLOW, FOUR = "three-bits", "four-bits"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / SLOW).symlink_to(three_bits.folder())
    (folder / FOUR).symlink_to(tiny.folder() / "gptq")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user without compilers who has compiled nothing yet."""
    folder = tmp_path_factory.mktemp("bare")
    return clean_env(folder / "home", PATH=str(path_without(folder / "bin", *COMPILERS)))


@pytest.fixture(scope="module")
def reports(models: Path, bare: Mapping[str, str]) -> dict[str, Any]:
    """What the engine says of each model once it is loaded, in a process of its own."""
    command = [sys.executable, "-c", LOAD, *(str(models / name) for name in (SLOW, FOUR))]
    done = subprocess.run(command, env={**bare, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip((SLOW, FOUR), json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(scope="module")
def seen(models: Path, bare: dict[str, str]) -> Seen:
    return doctor(*only("models", "compilers"), "--models-dir", str(models), env=bare)


def forecast(path: Path, env: Mapping[str, str]) -> dict[str, Any]:
    words = [sys.executable, "-P", "-c", RUN, "models", "show", str(path), "--json"]
    return json.loads(subprocess.run(words, env=env, capture_output=True, check=True).stdout)["forecast"]


@pytest.mark.engine
def test_the_classic_trap(seen: Seen, reports: dict[str, Any], models: Path, bare: dict[str, str]) -> None:
    shown = forecast(models / SLOW, bare)
    assert reports[SLOW]["kernel"] == shown["kernel"] == "gptq_torch"
    assert shown["slow"]
    assert any("ten or more times slower" in warning for warning in reports[SLOW]["warnings"])
    (slow,) = [finding for finding in seen.findings if finding.id == "model.slow"]
    assert (slow.title, slow.level) == (SLOW, "yellow")
    assert "runs on gptq_torch, the slow path: ten or more times slower" in slow.found


@pytest.mark.engine
def test_what_a_compiler_would_change(seen: Seen, reports: dict[str, Any], models: Path, bare: dict[str, str]) -> None:
    kernel = reports[FOUR]["kernel"]
    assert forecast(models / FOUR, bare)["kernel"] == kernel
    if not has_avx512_bf16():
        assert not seen.about(FOUR), "no compiler would give this CPU a faster kernel"
        return
    (finding,) = seen.about(FOUR)
    assert (finding.id, finding.level) == ("model.kernel", "yellow")
    assert f"runs on {kernel};" in finding.found
    assert "gptq_torch_cpu_avx512: is compiled at first use, and there is no C++ compiler" in finding.found
    assert finding.fix == seen["compiler"].fix != ""


def test_a_kernel_of_the_settings_is_judged_as_it_would_be_loaded(models: Path) -> None:
    model, host = read_model(models / FOUR), Host(compiler=True)
    (slow,) = judge(model, host, Machine(kernel="gptq_torch"))
    assert slow.id == "model.slow"
    assert "runs on gptq_torch (config.toml asks for gptq_torch), the slow path" in slow.found
    (absent,) = judge(model, host, Machine(kernel="marlin"))
    assert (absent.id, absent.level) == ("model.kernel", "red")
    (fine,) = judge(model, host, Machine(kernel="awq_torch_aten"))
    assert "asks" not in fine.found, "a kernel of another method says nothing about this model"
