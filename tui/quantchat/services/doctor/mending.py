"""Commands that install what is missing, for the package manager of this machine and for this interpreter."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Iterable

PYTHON = f"python3.{sys.version_info.minor}"
MANAGERS = {
    "apt-get": "apt-get install",
    "dnf": "dnf install",
    "yum": "yum install",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "apk": "apk add",
}
"""Programs that install packages of the system, those that stand for others on the same system first."""

_RED_HAT = {"g++": "gcc-c++", "python-headers": f"{PYTHON}-devel", "driver": "nvidia-driver", "nvcc": "cuda-toolkit"}
NAMES = {
    "apt-get": {"python-headers": f"{PYTHON}-dev", "driver": "nvidia-driver", "nvcc": "cuda-toolkit"},
    "dnf": _RED_HAT,
    "yum": _RED_HAT,
    "zypper": {**_RED_HAT, "python-headers": f"python3{sys.version_info.minor}-devel", "driver": "nvidia-video-G06"},
    "pacman": {"g++": "gcc", "python-headers": "python", "driver": "nvidia", "nvcc": "cuda"},
    "apk": {"python-headers": "python3-dev"},
}
"""What a package is called where it is not called like the program."""


def install(*programs: str) -> str:
    """Return the command that installs programs from the system's own packages; empty if no manager is known."""
    manager = next((name for name in MANAGERS if shutil.which(name)), None)
    if manager is None:
        return ""
    packages = dict.fromkeys(NAMES[manager].get(program, program) for program in programs)
    return f"{_root()}{MANAGERS[manager]} {' '.join(packages)}"


def update_driver() -> str:
    """Return the command that installs the driver which the system recommends."""
    return f"{_root()}ubuntu-drivers install" if shutil.which("ubuntu-drivers") else install("driver")


def cuda_toolkit(version: str | None) -> str:
    """Return the command that installs a version of the CUDA toolkit, which NVIDIA's package source has."""
    command = install("nvcc")
    return f"{command}-{version.replace('.', '-')}" if version and command.endswith("cuda-toolkit") else command


def pip_install(requirements: Iterable[str], *options: str) -> str:
    """Return the command that installs Python packages for this very interpreter."""
    return f"{_pip()} install {shlex.join([*options, *requirements])}"


def pip_uninstall(*packages: str) -> str:
    """Return the command that takes Python packages away from this interpreter."""
    return f"{_pip()} uninstall {shlex.join(packages)}"


def own(folder: str) -> str:
    """Return the command that gives a folder to this user, when another one has it."""
    return f"sudo chown -R {os.getuid()}:{os.getgid()} {shlex.quote(folder)}"


def _pip() -> str:
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        # Environments that uv made hold no pip.
        return f"VIRTUAL_ENV={shlex.quote(sys.prefix)} uv pip"
    return f"{python} -m pip"


def _root() -> str:
    return "" if os.geteuid() == 0 else "sudo "
