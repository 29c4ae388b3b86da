"""Compilers, compiled kernels and models, on a machine that has lost its compilers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from doctor.rig import COMPILERS, Seen, clean_env, doctor, make_venv, only, path_without
from quantchat.hardware.processor import has_avx512_bf16
from quantchat.services.doctor.compilers import too_new
from unit.catalog.model_folders import EMBEDDING, GPTQ_CONFIG, GPTQ_LAYER, LLAMA, make_gptq, make_model

LIBRARY = "gptqmodel_int4_qzero_group_scaled_cpu.so"
THREE_BITS = GPTQ_LAYER | {
    "model.layers.0.mlp.up_proj.qweight": ("I32", (6, 128)),
    "model.layers.0.mlp.up_proj.qzeros": ("I32", (1, 12)),
}
MODELS = ("plain-GPTQ", "three-GPTQ\x1b]0;x\x07")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], Path]:
    """A user with an interpreter and no compiler, with builds of another time and with models."""
    folder = tmp_path_factory.mktemp("bare")
    python = make_venv(folder / "venv")
    for build, file in (("0ld", LIBRARY), ("half", "binding.o")):
        place = folder / "kernels" / "int4_qzero_group_scaled_cpu" / build
        place.mkdir(parents=True)
        (place / file).write_bytes(b"x" * 4096)
    make_gptq(folder / "models" / MODELS[0], group_size=64)
    config = LLAMA | {"quantization_config": GPTQ_CONFIG | {"bits": 3, "group_size": 64}}
    make_model(folder / "models" / MODELS[1], tensors=EMBEDDING | THREE_BITS, files={"config.json": config})
    path = path_without(folder / "bin", *COMPILERS)
    env = clean_env(folder / "home", PATH=str(path), GPTQMODEL_TORCH_EXTENSIONS_DIR=str(folder / "kernels"))
    return python, env, folder


@pytest.fixture(scope="module")
def seen(bare: tuple[Path, dict[str, str], Path]) -> Seen:
    python, env, folder = bare
    checks = only("compilers", "caches", "models", "nvcc")
    return doctor(*checks, "--models-dir", str(folder / "models"), env=env, python=python)


@pytest.mark.engine
def test_without_compilers(seen: Seen) -> None:
    assert seen.status == 1
    assert seen["compiler"].level == "red"
    assert seen["ninja"].level == "red"
    assert seen["ninja"].fix.endswith("-m pip install ninja")
    assert seen["compiler.c"].level == "yellow"
    assert "nvcc" not in seen, "nothing needs it without a GPU"


@pytest.mark.engine
def test_a_model_on_the_slow_path_is_found(seen: Seen) -> None:
    (slow,) = [finding for finding in seen.findings if finding.id == "model.slow"]
    assert slow.title.startswith("three-GPTQ")
    assert slow.level == "yellow"
    assert "GPTQ 3b g64 runs on gptq_torch, the slow path" in slow.found
    assert "takes 4 bits, the model has 3" in slow.found


@pytest.mark.engine
def test_a_faster_kernel_that_lacks_only_a_tool_is_named(seen: Seen) -> None:
    if not has_avx512_bf16():
        assert not seen.about(MODELS[0]), "no tool would give this CPU a faster kernel"
        return
    (finding,) = seen.about(MODELS[0])
    assert finding.level == "yellow"
    assert "there is no C++ compiler with ninja" in finding.found
    assert "pip install ninja" in finding.fix


@pytest.mark.engine
def test_builds_that_nothing_uses(seen: Seen, bare: tuple[Path, dict[str, str], Path]) -> None:
    _, _, folder = bare
    assert "int4_qzero_group_scaled_cpu/0ld" in seen["kernels.stale"].found
    assert "int4_qzero_group_scaled_cpu/half" in seen["kernels.unfinished"].found
    assert seen["kernels"].found.startswith("int4_qzero_group_scaled_cpu: 4.0 KiB")
    for finding in ("kernels.stale", "kernels.unfinished"):
        subprocess.run(shlex.split(seen[finding].fix), check=True)
    assert list((folder / "kernels" / "int4_qzero_group_scaled_cpu").iterdir()) == []


def program(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """PATH without compilers."""
    return path_without(tmp_path / "bin", *COMPILERS)


def compilers(programs: Path, **more: str) -> Seen:
    return doctor(*only("compilers"), env=clean_env(programs.parent / "home", PATH=str(programs), **more))


def test_a_compiler_that_does_not_run(programs: Path) -> None:
    for name in ("c++", "ninja"):
        program(programs, name, "echo error: cannot execute cc1plus >&2", "exit 1")
    seen = compilers(programs)
    assert seen["compiler"].level == "red"
    assert "cannot execute cc1plus" in seen["compiler"].found
    assert seen["ninja"].level == "red"
    assert seen["ninja"].fix.endswith("--force-reinstall ninja")


def test_a_compiler_that_hangs_is_ended(programs: Path) -> None:
    program(programs, "c++", "sleep 1000")
    assert "ended for being slow" in compilers(programs)["compiler"].found
    assert not [process for process in psutil.process_iter(["environ"]) if str(programs) in str(process.info)]


def test_a_compiler_under_another_name_than_torch_calls(programs: Path) -> None:
    (programs / "g++").symlink_to(str(shutil.which("g++")))
    found = compilers(programs)["compiler"]
    assert found.level == "red"
    assert "torch compiles with c++, which is not there" in found.found
    name, _, value = found.fix.removeprefix("export ").partition("=")
    assert compilers(programs, **{name: value})["compiler"].level == "green"
    broken = compilers(programs, CXX="no-such-compiler -O2")["compiler"]
    assert "no-such-compiler, which is not there" in broken.found


def test_a_compiler_without_its_library(programs: Path) -> None:
    program(programs, "c++", f'exec {shutil.which("g++")} -nostdinc++ -nostdinc "$@"')
    found = compilers(programs)["compiler"]
    assert found.level == "red"
    assert "vector: No such file" in found.found


@pytest.mark.engine
def test_bounds_are_those_of_the_installed_torch() -> None:
    from torch.utils.cpp_extension import CUDA_CLANG_VERSIONS, CUDA_GCC_VERSIONS

    for name, table in (("CUDA_GCC_VERSIONS", CUDA_GCC_VERSIONS), ("CUDA_CLANG_VERSIONS", CUDA_CLANG_VERSIONS)):
        assert {cuda: too_new(cuda, name) for cuda in table} == {cuda: most[0] for cuda, (_, most) in table.items()}
    assert too_new("99.0", "CUDA_GCC_VERSIONS") is None


def test_the_compilers_of_this_machine(env: dict[str, str]) -> None:
    seen = doctor(*only("compilers"), env=env)
    assert seen.status == 0
    assert os.access(seen["compiler"].found.rpartition("(")[2].rstrip(")"), os.X_OK)
    assert seen["python.headers"].level == "green"


def test_a_model_by_name(tmp_path: Path, env: dict[str, str]) -> None:
    seen = doctor(*only("models"), "no-such-model", "--models-dir", str(tmp_path), env=env)
    assert seen.status == 1
    assert "No model is called no-such-model" in seen["model"].found
