"""The compilers and packages of this machine, and what GPTQModel's kernels may do with them. Nothing is imported."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

DENIALS = ("", "0", "false", "no", "off")
LLAMA_GPU_PARTS = frozenset(f"libggml-{kind}" for kind in ("cuda", "hip", "vulkan", "metal", "sycl", "musa"))
LIBRARY_SUFFIXES = (".so", ".pyd", ".dll", ".dylib")


def compilers() -> tuple[bool, bool]:
    """Say whether a C++ compiler with ninja, and nvcc, are there."""
    # torch compiles with CXX, which may hold several words, else with c++, and never looks for others.
    compiler = shutil.which((os.environ.get("CXX", "").split() or ["c++"])[0]) is not None
    return compiler and ninja() is not None, nvcc() is not None


def ninja() -> str | None:
    """Return the path of ninja, which pip puts beside the interpreter: the environment need not be activated."""
    return shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))


def nvcc() -> str | None:
    """Return the path of the CUDA compiler as torch finds it (`_find_cuda_home`): CUDA_HOME alone where it is set."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    beside = Path(home or "/usr/local/cuda") / "bin" / "nvcc"
    return (None if home else shutil.which("nvcc")) or (str(beside) if beside.is_file() else None)


def offline() -> bool:
    """Whether kernels must not download sources, and the user gave none; the engine forbids it unless told."""
    forbidden = os.environ.get("GPTQMODEL_OFFLINE", "1").lower() not in DENIALS
    return forbidden and not os.environ.get("GPTQMODEL_CUTLASS_DIR")


def built_extensions() -> frozenset[str]:
    """Return GPTQModel's extensions that were compiled on this machine, for whatever versions.

    They lie in `torch_extensions/<extension>/<fingerprint>/` of its cache (`default_torch_ops_build_root` and
    `build_root` in `gptqmodel/utils/cpp.py`); only GPTQModel itself knows whether the fingerprint is still right.
    """
    try:
        chosen = os.environ.get("GPTQMODEL_TORCH_EXTENSIONS_DIR")
        root = Path(chosen or "~/.cache/gptqmodel/torch_extensions").expanduser()
        libraries = [path for path in root.glob("*/*/*") if path.suffix in LIBRARY_SUFFIXES]
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(path.parent.parent.name for path in libraries)


def llama_offloads() -> bool:
    """Whether the llama.cpp that is installed computes on GPUs; true where none is, as it may be built so."""
    found = find_spec("llama_cpp")
    folders = [Path(folder) / "lib" for folder in (found.submodule_search_locations or ())] if found else []
    names = {path.name.partition(".")[0] for folder in folders for path in folder.glob("libggml-*")}
    return not names or not LLAMA_GPU_PARTS.isdisjoint(names)


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages, as far as they are there; nothing is imported for it."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
