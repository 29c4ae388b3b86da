"""How much host memory there is, and who limits it: the container, the shell, the kernel."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from quantchat import cgroups
from quantchat.domain.memory import GIB, format_bytes
from quantchat.hardware.host import host_memory, machine_bytes
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine

TOO_LITTLE, LITTLE = 2 * GIB, 6 * GIB
"""The imports alone hold 0.8 GiB, and compiling a kernel takes 1 to 2."""
FEW_FILES = 256


def look_at_memory(machine: Machine) -> Iterator[Finding]:
    """Compare the memory that can be had with what the libraries take before any model."""
    memory, machine_has = host_memory(), machine_bytes()
    room, most = memory.available, memory.total
    words = f"{format_bytes(room)} of {format_bytes(most)} free"
    if most < machine_has:
        words += f" under the limit of a container or job; the machine has {format_bytes(machine_has)}"
    if most < TOO_LITTLE or room < TOO_LITTLE:
        words = f"{words}: the libraries take 0.8 GiB before any model, and a compiler 1 to 2."
        yield Finding(id="memory", title="Host memory", level="red" if most < TOO_LITTLE else "yellow", found=words)
    elif most < LITTLE:
        words = f"{words}: enough for small models only, on a GPU too while it loads."
        yield Finding(id="memory", title="Host memory", level="yellow", found=words)
    else:
        yield Finding(id="memory", title="Host memory", found=words)
    kills = max((limit.kills for limit in cgroups.limits()), default=0)
    if kills:
        words = f"{kills} processes under this limit were killed for lack of memory."
        yield Finding(id="memory.killed", title="Killed processes", level="yellow", found=words)


def look_at_limits(machine: Machine) -> Iterator[Finding]:
    """Check what the shell and the kernel forbid."""
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        words = f"Address space is limited to {format_bytes(space)}; CUDA reserves far more than it uses."
        yield Finding(id="limits.space", title="Limits", level="red", found=words, fix="ulimit -v unlimited")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < FEW_FILES:
        words = f"Only {files} files may be open; a model of many shards and its compilers need more."
        yield Finding(id="limits.files", title="Limits", level="yellow", found=words, fix="ulimit -n 4096")
    if _read(Path("/proc/sys/vm/overcommit_memory")) == "2":
        words = "The kernel promises no memory that it has not got; CUDA and the Python libraries ask for much of it."
        fix = "sudo sysctl vm.overcommit_memory=0"
        yield Finding(id="limits.overcommit", title="Limits", level="yellow", found=words, fix=fix)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None
