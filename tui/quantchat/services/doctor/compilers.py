"""What kernels are compiled with at their first use: a C++ compiler, ninja, Python's headers, and nvcc for GPUs."""

from __future__ import annotations

import os
import re
import shlex
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.gpus import dotted, version_of
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import PYTHON, cuda_toolkit, install, pip_install

GCC_BELOW = {
    (12, 0): 13,
    (12, 1): 13,
    (12, 2): 13,
    (12, 3): 14,
    (12, 4): 14,
    (12, 5): 14,
    (12, 6): 14,
    (12, 7): 14,
    (12, 8): 15,
    (12, 9): 15,
    (13, 0): 16,
}
"""The first g++ that a CUDA toolkit does not take, as torch's `cpp_extension.py` has it (`CUDA_GCC_VERSIONS`)."""
OLDEST_GCC = 10
"""torch's headers are C++20 (`torch/all.h` says so), which g++ knows by this name from 10 on."""
CUDA_HOMES = "/usr/local/cuda*/bin/nvcc"


def look_at_compiler(machine: Machine) -> Iterator[Finding]:
    """Look for what compiles the kernels of the CPU and the host part of all others."""
    wanted = machine.env.get("CXX") or "g++"
    compiler = machine.which(wanted, "c++", "clang++")
    if compiler is None:
        words = "None: kernels cannot be compiled, and 4-bit models run on slow ones."
        yield Finding(id="compiler", title="C++ compiler", level="red", found=words, fix=install("g++"))
    else:
        yield _compiler(machine, compiler)
    if machine.which(machine.env.get("CC") or "gcc", "cc", "clang") is None:
        words = "None: Triton cannot compile its kernels."
        yield Finding(id="compiler.c", title="C compiler", level="yellow", found=words, fix=install("gcc"))
    yield _ninja(machine)
    yield _headers()


def look_at_nvcc(machine: Machine) -> Iterator[Finding]:
    """Compare the CUDA compiler with torch's CUDA; without a GPU nothing asks for one."""
    if isinstance(machine.driver(), NotAvailable):
        return
    torch = machine.probe().torch
    cuda = torch.cuda if torch else None
    if (path := nvcc(machine)) is None:
        words = "None: Marlin, Machete and ExLlama cannot be compiled; GPTQ and AWQ run on slower kernels."
        yield Finding(id="nvcc", title="nvcc", level="red", found=words, fix=cuda_toolkit(cuda))
        return
    ran = machine.run(path, "--version")
    version = version_of(found[0]) if ran and (found := re.search(r"release \d+\.\d+", ran.out)) else None
    if version is None:
        yield Finding(id="nvcc", title="nvcc", level="red", found=f"{path} does not run.", fix=cuda_toolkit(cuda))
        return
    built = version_of(cuda or "")
    if built is not None and version[0] != built[0]:
        words = f"{path} is of CUDA {dotted(version)}, torch of {cuda}: torch refuses to compile with it."
        yield Finding(id="nvcc", title="nvcc", level="red", found=words, fix=cuda_toolkit(cuda))
    else:
        yield Finding(id="nvcc", title="nvcc", found=f"CUDA {dotted(version)} ({path})")
    yield from _gcc_for(machine, version)
    yield from _cuda_headers(machine, Path(path))


def nvcc(machine: Machine) -> str | None:
    """Return the CUDA compiler as torch finds it: CUDA_HOME, PATH, the usual place."""
    home = machine.env.get("CUDA_HOME") or machine.env.get("CUDA_PATH")
    if home:
        own = Path(home) / "bin" / "nvcc"
        return str(own) if os.access(own, os.X_OK) else None
    usual = Path("/usr/local/cuda/bin/nvcc")
    return machine.which("nvcc") or (str(usual) if os.access(usual, os.X_OK) else None)


def _compiler(machine: Machine, path: str) -> Finding:
    ran = machine.run(path, "-dumpfullversion", "-dumpversion")
    version = ran.out.strip() if ran and ran.status == 0 else ""
    if not version:
        said = (ran.err if ran else "").strip().splitlines()
        words = f"{path} does not run. {said[-1] if said else ''}".strip()
        return Finding(id="compiler", title="C++ compiler", level="red", found=words, fix=install("g++"))
    major = int(re.match(r"\d*", version)[0] or 0)  # type: ignore[index]
    if "clang" not in path and major < OLDEST_GCC:
        words = f"{version} ({path}) is too old for torch's headers, which need {OLDEST_GCC} or later."
        return Finding(id="compiler", title="C++ compiler", level="red", found=words, fix=install("g++"))
    return Finding(id="compiler", title="C++ compiler", found=f"{version} ({path})")


def _gcc_for(machine: Machine, cuda: tuple[int, int]) -> Iterator[Finding]:
    below, compiler = GCC_BELOW.get(cuda), machine.which(machine.env.get("CXX") or "g++")
    ran = machine.run(compiler, "-dumpversion") if compiler and below else None
    major = version_of(f"{ran.out.strip()}.0") if ran and "clang" not in str(compiler) else None
    if below and major and major[0] >= below:
        words = f"g++ {major[0]} is newer than CUDA {dotted(cuda)} takes: kernels do not compile."
        older = f"g++-{below - 1}"
        fix = "\n".join([install(older), f"export CXX={older} CC=gcc-{below - 1}"])
        yield Finding(id="nvcc.gcc", title="nvcc and g++", level="red", found=words, fix=fix)


def _cuda_headers(machine: Machine, compiler: Path) -> Iterator[Finding]:
    """torch looks for the headers beside the nvcc that it found, which may be a script elsewhere."""
    home = machine.env.get("CUDA_HOME") or machine.env.get("CUDA_PATH") or str(compiler.parent.parent)
    if (Path(home) / "include" / "cuda_runtime.h").is_file():
        return
    others = sorted(path.parent.parent for path in Path("/").glob(CUDA_HOMES.lstrip("/")))
    whole = [other for other in others if (other / "include" / "cuda_runtime.h").is_file()]
    words = f"{home} has an nvcc but no include/cuda_runtime.h."
    fix = f"export CUDA_HOME={shlex.quote(str(whole[-1]))}" if whole else pip_install(["gptqmodel[marlin-cuda]"])
    yield Finding(id="nvcc.headers", title="CUDA headers", level="yellow", found=words, fix=fix)


def _ninja(machine: Machine) -> Finding:
    path = machine.which("ninja")
    ran = machine.run(path, "--version") if path else None
    if ran and ran.status == 0:
        return Finding(id="ninja", title="ninja", found=f"{ran.out.strip()} ({path})")
    words = f"{path} does not run." if path else "None: kernels cannot be compiled."
    fix = pip_install(["ninja"], *(["--force-reinstall"] if path else []))
    return Finding(id="ninja", title="ninja", level="red", found=words, fix=fix)


def _headers() -> Finding:
    folder = sysconfig.get_path("include")
    if (Path(folder) / "Python.h").is_file():
        return Finding(id="python.headers", title="Python headers", found=folder)
    words = f"No Python.h in {folder}: kernels cannot be compiled."
    # A Python that the system does not have a package of brought its headers along, or was built without.
    fix = install("python-headers") if folder.startswith("/usr/include") else ""
    more = "" if fix else f" Use a {PYTHON} that has them."
    return Finding(id="python.headers", title="Python headers", level="red", found=words + more, fix=fix)
