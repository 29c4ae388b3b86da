"""Commands that install what is missing, for the package manager of this machine and for this interpreter."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
UVM = "/dev/nvidia-uvm"
PYTHON = f"python3.{sys.version_info.minor}"
MANAGERS = {
    # Images of containers come without the lists of packages.
    "apt-get": "apt-get update && apt-get install",
    "dnf": "dnf install",
    "yum": "yum install",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "apk": "apk add",
}
"""Programs that install packages of the system, those that stand for others on the same system first."""

_RED_HAT = {"g++": "gcc-c++", "python-headers": f"{PYTHON}-devel", "driver": "nvidia-driver", "nvcc": "cuda-toolkit"}
NAMES = {
    "apt-get": {
        "python-headers": f"{PYTHON}-dev",
        "python-venv": f"{PYTHON}-venv",
        "driver": "nvidia-driver",
        "nvcc": "cuda-toolkit",
    },
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
    return as_root(f"{MANAGERS[manager]} {' '.join(packages)}")


def as_root(command: str) -> str:
    """Return a command as the administrator runs it; of a chain each link."""
    return command if os.geteuid() == 0 else "sudo " + command.replace("&& ", "&& sudo ")


def in_container() -> bool:
    """Whether this is a container, whose driver is that of the host."""
    return "container" in os.environ or any(map(os.path.exists, CONTAINER_MARKS))


def newer_driver() -> tuple[str, str]:
    """Say what to do about an old or absent driver: in words, or with the command that installs the recommended one."""
    if in_container():
        return " This is a container: the driver is the host's, and `--gpus all` passes it in.", ""
    return "", as_root("ubuntu-drivers install") if shutil.which("ubuntu-drivers") else install("driver")


def reach_gpu() -> str:
    """Return the command for a GPU that the driver sees and CUDA does not: CUDA asks through a device of its own."""
    if in_container() or os.path.exists(UVM):
        return as_root("dmesg | grep -i nvrm")
    return as_root("modprobe nvidia_uvm")


def cuda_toolkit(version: str | None) -> str:
    """Return the command that installs a version of the CUDA toolkit, which NVIDIA's package source has."""
    command = install("nvcc")
    return f"{command}-{version.replace('.', '-')}" if version and command.endswith("cuda-toolkit") else command


def pip_install(requirements: Iterable[str], *options: str) -> str:
    """Return the command that installs Python packages for this very interpreter."""
    return _pip("install", *options, *requirements)


def pip_uninstall(*packages: str) -> str:
    """Return the command that takes Python packages away from this interpreter."""
    return _pip("uninstall", *packages)


def here(command: str) -> str:
    """Return a command for this interpreter that says `pip install` of whichever is found first."""
    words = shlex.split(command)
    return pip_install(words[2:]) if words[:2] == ["pip", "install"] else command


def own(folder: str) -> str:
    """Return the command that gives a folder to this user, when another one has it."""
    return f"sudo chown -R {os.getuid()}:{os.getgid()} {shlex.quote(folder)}"


def _pip(verb: str, *words: str) -> str:
    """Name the interpreter: a `pip` on PATH may be another one's."""
    python = shlex.quote(sys.executable)
    # That the system's packages are its own (PEP 668) was overruled already when quantchat was installed there.
    options = ["--break-system-packages"] if _is_managed() else []
    arguments = shlex.join([*options, *words])
    if importlib.util.find_spec("pip") is not None:
        return f"{python} -m pip {verb} {arguments}"
    if shutil.which("uv"):
        # Environments that uv made hold no pip.
        return f"uv pip {verb} --python {python} {arguments}"
    # Debian keeps it in a package.
    first = [] if importlib.util.find_spec("ensurepip") else [install("python-venv")]
    return "\n".join([*filter(None, first), f"{python} -m ensurepip", f"{python} -m pip {verb} {arguments}"])


def _is_managed() -> bool:
    """Whether the packages of this interpreter belong to the system (PEP 668)."""
    return sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file()
