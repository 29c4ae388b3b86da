"""The compilers of this machine, and what GPTQModel's kernels may do with them. Nothing is started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DENIALS = ("", "0", "false", "no", "off")


def compilers() -> tuple[bool, bool]:
    """Say whether a C++ compiler with ninja, and nvcc, are there."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "c++", "clang++"))
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = bool(shutil.which("nvcc")) or (Path(home) / "bin" / "nvcc").is_file()
    return compiler and shutil.which("ninja") is not None, nvcc


def offline() -> bool:
    """Whether kernels must not download sources, and the user gave none."""
    forbidden = os.environ.get("GPTQMODEL_OFFLINE", "0").lower() not in DENIALS
    return forbidden and not os.environ.get("GPTQMODEL_CUTLASS_DIR")
