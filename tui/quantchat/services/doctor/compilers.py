"""What kernels are compiled with at their first use: a C++ compiler, ninja, Python's headers, and nvcc for GPUs."""

from __future__ import annotations

import os
import re
import shlex
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.gpus import dotted, version_of
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import PYTHON, cuda_toolkit, install, pip_install

STANDARD = "c++20"
"""Of torch's headers since 2.14, the oldest that quantchat takes (`_jit_cxx_standard` in GPTQModel's `cpp.py`)."""
BOUNDS = "torch/utils/cpp_extension.py"
"""Where torch says which compilers a CUDA toolkit takes, in `CUDA_GCC_VERSIONS` and `CUDA_CLANG_VERSIONS`."""
SOURCE = "All versions of it are in NVIDIA's own package source."
CUDA_HOMES = "/usr/local/cuda*/bin/nvcc"


def look_at_compiler(machine: Machine) -> Iterator[Finding]:
    """Look for what compiles the kernels of the CPU and the host part of all others."""
    yield _compiler(machine)
    # Triton's own choice (`_find_compiler` in its `runtime/build.py`).
    if machine.which(*(machine.env.get("CC", "").split()[:1] or ("gcc", "clang"))) is None:
        words = "None: Triton cannot compile its kernels."
        yield Finding(id="compiler.c", title="C compiler", level="yellow", found=words, fix=install("gcc"))
    yield _ninja(machine)
    yield _headers()


def look_at_nvcc(machine: Machine) -> Iterator[Finding]:
    """Compare the CUDA compiler with torch's CUDA; without a GPU nothing asks for one."""
    if isinstance(machine.driver(), NotAvailable):
        return
    cuda = torch_cuda(machine)
    if (path := nvcc(machine)) is None:
        words = f"None: Marlin, Machete and ExLlama cannot be compiled; GPTQ and AWQ run on slower kernels. {SOURCE}"
        yield Finding(id="nvcc", title="nvcc", level="red", found=words, fix=cuda_toolkit(cuda))
        return
    ran = machine.run(path, "--version")
    version = version_of(found[0]) if ran and (found := re.search(r"release \d+\.\d+", ran.out)) else None
    if version is None:
        yield Finding(id="nvcc", title="nvcc", level="red", found=f"{path} does not run.", fix=cuda_toolkit(cuda))
        return
    built = version_of(cuda or "")
    if built is not None and version[0] != built[0]:
        words = f"{path} is of CUDA {dotted(version)}, torch of {cuda}: torch refuses to compile with it. {SOURCE}"
        yield Finding(id="nvcc", title="nvcc", level="red", found=words, fix=cuda_toolkit(cuda))
    else:
        yield Finding(id="nvcc", title="nvcc", found=f"CUDA {dotted(version)} ({path})")
    yield from _compiler_for(machine, version)
    yield from _cuda_headers(machine, Path(path))


def torch_cuda(machine: Machine) -> str | None:
    """Return the version of CUDA that torch was built with: as its package says, else as it says once imported."""
    if found := re.search(r"^cuda\b[^=]*= '([\d.]+)'", _source("torch/version.py"), re.MULTILINE):
        return found[1]
    torch = machine.probe().torch
    return torch.cuda if torch else None


def nvcc(machine: Machine) -> str | None:
    """Return the CUDA compiler as torch finds it: CUDA_HOME, PATH, the usual place."""
    home = machine.env.get("CUDA_HOME") or machine.env.get("CUDA_PATH")
    if home:
        own = Path(home) / "bin" / "nvcc"
        return str(own) if os.access(own, os.X_OK) else None
    usual = Path("/usr/local/cuda/bin/nvcc")
    return machine.which("nvcc") or (str(usual) if os.access(usual, os.X_OK) else None)


def cxx(machine: Machine) -> list[str]:
    """Return the command that torch compiles with (`get_cxx_compiler`): CXX, which may hold several words, or c++."""
    return machine.env.get("CXX", "").split() or ["c++"]


def _compiler(machine: Machine) -> Finding:
    command = cxx(machine)
    path = machine.which(command[0])
    if path is None:
        return _no_compiler(machine, command[0])
    # The standard library's headers are a package of their own.
    trial = machine.run(*command, f"-std={STANDARD}", "-x", "c++", "-fsyntax-only", "-include", "vector", os.devnull)
    if trial is None or trial.status != 0:
        slow = trial is not None and trial.status is None
        end = "It was ended for being slow." if slow else "It does not run."
        said = next((line for line in (trial.err if trial else "").splitlines() if "error" in line), end)
        words = f"{path} does not compile {STANDARD}, which torch's headers are written in. {said}"
        return Finding(id="compiler", title="C++ compiler", level="red", found=words, fix=install("g++"))
    return Finding(id="compiler", title="C++ compiler", found=f"{compiler_version(machine)} ({path})".strip())


def _no_compiler(machine: Machine, wanted: str) -> Finding:
    other = machine.which("g++", "clang++", "c++")
    words, fix = "None: kernels cannot be compiled, and 4-bit models run on slow ones.", install("g++")
    if other:
        words = f"torch compiles with {wanted}, which is not there; {other} is."
        fix = "unset CXX" if other.endswith("/c++") else f"export CXX={shlex.quote(other)}"
    return Finding(id="compiler", title="C++ compiler", level="red", found=words, fix=fix)


def compiler_version(machine: Machine) -> str:
    """Return the version of the C++ compiler; clang knows only the second word."""
    for words in (("-dumpfullversion", "-dumpversion"), ("-dumpversion",)):
        ran = machine.run(*cxx(machine), *words)
        if ran and ran.status == 0:
            return ran.out.strip()
    return ""


def _compiler_for(machine: Machine, cuda: tuple[int, int]) -> Iterator[Finding]:
    """Compare the compiler with the versions that the installed torch takes for a CUDA toolkit."""
    clang = "clang" in cxx(machine)[0]
    below = too_new(dotted(cuda), "CUDA_CLANG_VERSIONS" if clang else "CUDA_GCC_VERSIONS")
    major = re.match(r"\d+", compiler_version(machine)) if below else None
    if below and major and int(major[0]) >= below:
        words = f"{cxx(machine)[0]} {major[0]} is newer than CUDA {dotted(cuda)} takes: torch refuses to compile."
        older = f"g++-{below - 1}"
        fix = f"{install(older)}\nexport CXX={older} CC=gcc-{below - 1}" if not clang else "unset CXX"
        yield Finding(id="nvcc.gcc", title="nvcc and g++", level="red", found=words, fix=fix)


def too_new(cuda: str, table: str) -> int | None:
    """Read from the installed torch the first major version of a compiler that a CUDA toolkit does not take."""
    rows = re.search(rf"^{table}\b[^{{]*\{{(.*?)^\}}", _source(BOUNDS), re.MULTILINE | re.DOTALL)
    row = re.search(rf"'{re.escape(cuda)}':.*\((\d+)[^()]*\)\)", rows[1]) if rows else None
    return int(row[1]) if row else None


def _source(file: str) -> str:
    """Return a file of the installed torch; empty if it is not there."""
    try:
        return Path(str(metadata.distribution("torch").locate_file(file))).read_text("utf-8")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return ""


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
