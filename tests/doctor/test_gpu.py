"""Cards, drivers and CUDA compilers, with a driver library that these tests compile and script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from doctor.rig import Seen, clean_env, compile_driver, doctor, make_venv, only
from quantchat.services.doctor.compilers import torch_cuda
from quantchat.services.doctor.drivers import nvidia_cards
from quantchat.services.doctor.gpus import runs
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import as_root, in_container

OLD = """init 0
count 1
driver 535.54
cuda 12020
0.name NVIDIA GeForce GTX 1080
0.memory 8000 7000 1000
0.capability 6 1
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"))


def with_driver(
    driver: Path, home: Path, script: str, *checks: str, python: Path | str = sys.executable, **more: str
) -> Seen:
    home.mkdir(exist_ok=True)
    (home / "script").write_text(script)
    env = clean_env(home, **{"LD_LIBRARY_PATH": str(driver), "NVML_SCRIPT": str(home / "script")} | more)
    return doctor(*only(*checks), env=env, python=python)


@pytest.mark.engine
def test_an_old_card_with_an_old_driver(driver: Path, tmp_path: Path) -> None:
    seen = with_driver(driver, tmp_path, OLD, "driver", "torch", "nvcc", CUDA_HOME=str(tmp_path))
    assert seen.status == 1
    assert seen["driver"].found == "535.54, runs CUDA up to 12.2: NVIDIA GeForce GTX 1080 (6.1)"
    card = seen["torch.arch.0"]
    assert card.level == "red"
    assert "NVIDIA GeForce GTX 1080, compute capability 6.1" in card.found
    assert "holds no code for it (sm_75" in card.found
    assert card.fix == "quantchat --device cpu"
    assert seen["torch.cuda"].level == "red"
    assert "the driver runs CUDA up to 12.2: torch cannot use the GPU" in seen["torch.cuda"].found
    assert seen["torch.gpu"].level == "red", "torch itself finds no driver here, and is quoted"
    assert "RuntimeError" in seen["torch.gpu"].found
    assert seen["nvcc"].level == "red"
    assert "slower kernels" in seen["nvcc"].found


def test_a_device_that_is_lost(driver: Path, tmp_path: Path) -> None:
    script = OLD.replace("count 1", "count 2") + "1.handle !15\n"
    seen = with_driver(driver, tmp_path, script, "driver")
    assert seen.status == 1
    assert seen["driver"].level == "green"
    assert "GPU 1 does not answer" in seen["driver.device"].found


def test_a_driver_that_was_updated_under_our_feet(driver: Path, tmp_path: Path) -> None:
    seen = with_driver(driver, tmp_path, "init !18\n", "driver")
    found = seen["driver"]
    assert found.level == "red"
    assert "was updated" in found.found
    assert ("restarted" in found.found, found.fix) == ((True, "") if in_container() else (False, as_root("reboot")))


def test_inside_a_container_the_driver_is_the_hosts(driver: Path, tmp_path: Path) -> None:
    seen = with_driver(driver, tmp_path, "init !18\n", "driver", container="podman")
    assert "This is a container" in seen["driver"].found
    assert seen["driver"].fix == ""


def test_without_the_package_that_asks_the_driver(driver: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv", "pynvml*", "nvidia_ml_py*")
    seen = with_driver(driver, tmp_path / "home", OLD, "driver", python=python)
    assert seen["driver"].level == "red"
    assert seen["driver"].fix == f"{python} -m pip install nvidia-ml-py"


def test_a_driver_that_crashes(tmp_path: Path) -> None:
    source = tmp_path / "crash.c"
    source.write_text("int nvmlInitWithFlags(unsigned flags) { return *(int *)(long)flags; }\n")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    seen = with_driver(tmp_path, tmp_path / "home", OLD, "driver", "python")
    assert seen["driver"].level == "red"
    assert "ended the process that did (SIGSEGV)" in seen["driver"].found
    assert seen["python"].level == "green"


@pytest.mark.engine
def test_a_driver_that_hangs_holds_up_nothing_else(driver: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # Opening a pipe that nobody writes to waits for ever, inside of the driver's library.
    os.mkfifo(home / "pipe")
    seen = with_driver(driver, home, OLD, "driver", "torch", "imports", NVML_SCRIPT=str(home / "pipe"))
    assert seen["driver"].level == "red"
    assert "did not answer for 15 s" in seen["driver"].found
    assert seen["import"].level == "green", "torch was kept from asking the same driver"
    assert left_behind(home) == []


def left_behind(home: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["environ"]) if str(home) in str(process.info["environ"])]


def test_an_old_driver_that_tells_no_versions(driver: Path, tmp_path: Path) -> None:
    script = "".join(line for line in OLD.splitlines(keepends=True) if not line.startswith(("driver", "cuda", "0.cap")))
    seen = with_driver(driver, tmp_path, script, "driver")
    assert seen["driver"].found == "unknown version: NVIDIA GeForce GTX 1080 (unknown)"


def toolkit(folder: Path, release: str, *, headers: bool = True) -> Path:
    """A CUDA toolkit whose compiler says that it is of a release."""
    for name in ("bin", "include"):
        (folder / name).mkdir(parents=True)
    (folder / "bin" / "nvcc").write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    (folder / "bin" / "nvcc").chmod(0o755)
    if headers:
        (folder / "include" / "cuda_runtime.h").touch()
    return folder


def test_a_toolkit_of_another_cuda_than_torchs(driver: Path, tmp_path: Path) -> None:
    home = toolkit(tmp_path / "cuda-9.0", "9.0")
    seen = with_driver(driver, tmp_path / "home", OLD, "nvcc", CUDA_HOME=str(home))
    assert seen["nvcc"].level == "red"
    assert f"{home}/bin/nvcc is of CUDA 9.0, torch of " in seen["nvcc"].found
    assert "torch refuses to compile with it" in seen["nvcc"].found


def test_a_compiler_that_is_too_new_for_the_toolkit(driver: Path, tmp_path: Path) -> None:
    built = torch_cuda(Machine())
    if built is None:
        pytest.skip("torch is built without CUDA")
    home = toolkit(tmp_path / "cuda", f"{built.partition('.')[0]}.0", headers=False)
    newest = tmp_path / "g++"
    newest.write_text('#!/bin/sh\ncase "$*" in *dump*) echo 99.1.0;; *) exec g++ "$@";; esac\n')
    newest.chmod(0o755)
    more = {"CUDA_HOME": str(home), "CXX": str(newest)}
    seen = with_driver(driver, tmp_path / "home", OLD, "nvcc", "compilers", **more)
    assert seen["nvcc"].level == "green"
    assert seen["compiler"].found.startswith("99.1.0")
    assert seen["nvcc.gcc"].level == "red"
    assert "99 is newer than CUDA" in seen["nvcc.gcc"].found
    assert "export CXX=g++-" in seen["nvcc.gcc"].fix
    assert "include/cuda_runtime.h" in seen["nvcc.headers"].found


@pytest.mark.parametrize(
    ("arch", "capability", "expected"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (9, 1), False),
        ("sm_100f", (10, 3), True),
        ("sm_120", (12, 0), True),
        ("compute_90", (10, 0), True),
        ("compute_90", (8, 9), False),
        ("gfx942", (9, 0), False),
    ],
)
def test_which_code_runs_on_which_card(arch: str, capability: tuple[int, int], expected: bool) -> None:
    assert runs(arch, capability) is expected


def test_cards_are_known_without_a_driver(tmp_path: Path) -> None:
    devices = {
        "0000:01:00.0": ("0x10de", "0x030200"),
        "0000:01:00.1": ("0x10de", "0x040300"),
        "02": ("0x1002", "0x030000"),
    }
    for name, (vendor, kind) in devices.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "half").mkdir()
    assert nvidia_cards(tmp_path) == ["0000:01:00.0"]
