"""How much host memory there is, and who limits it: the container, the shell, the kernel."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quantchat.domain.memory import GIB, format_bytes
from quantchat.hardware.host import host_memory
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine

TOO_LITTLE, LITTLE = 2 * GIB, 6 * GIB
"""The imports alone hold 0.8 GiB, and compiling a kernel takes 1 to 2."""
FEW_FILES = 256
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


class Limit(msgspec.Struct, frozen=True):
    """A limit on the memory of this process and its siblings, in bytes, and how often the kernel killed for it."""

    limit: int
    used: int
    kills: int = 0


def look_at_memory(machine: Machine) -> Iterator[Finding]:
    """Compare the memory that can be had with what the libraries take before any model."""
    memory = host_memory()
    limits = container_limits()
    limit = min(limits, key=lambda found: found.limit, default=None)
    room = min([memory.available, *(found.limit - found.used for found in limits)])
    most = min([memory.total, *(found.limit for found in limits)])
    words = f"{format_bytes(max(room, 0))} of {format_bytes(most)} free"
    if limit is not None and limit.limit < memory.total:
        words += f" under the limit of a container or job; the machine has {format_bytes(memory.total)}"
    if most < TOO_LITTLE or room < TOO_LITTLE:
        words = f"{words}: the libraries take 0.8 GiB before any model, and a compiler 1 to 2."
        yield Finding(id="memory", title="Host memory", level="red" if most < TOO_LITTLE else "yellow", found=words)
    elif most < LITTLE:
        words = f"{words}: enough for small models only, on a GPU too while it loads."
        yield Finding(id="memory", title="Host memory", level="yellow", found=words)
    else:
        yield Finding(id="memory", title="Host memory", found=words)
    if limit is not None and limit.kills:
        words = f"{limit.kills} processes under this limit were killed for lack of memory."
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


def container_limits(root: Path = CGROUPS, process: Path = Path("/proc/self/cgroup")) -> list[Limit]:
    """Return the limits of the control groups (version 1 and 2) that this process is in, its own first."""
    found = []
    for line in (_read(process) or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            folders = _upwards(root, path)
            found += [_limit(folder, "memory.max", "memory.current", "memory.events") for folder in folders]
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")
            found += [_limit(folder, *names) for folder in _upwards(root / "memory", path)]
    return [limit for limit in found if limit is not None]


def _upwards(root: Path, path: str) -> list[Path]:
    """A group and those above it. A container sees its own group as the root, under whatever path."""
    own = root / path.lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]


def _limit(folder: Path, limit: str, used: str, events: str) -> Limit | None:
    most, now = _read(folder / limit) or "", _read(folder / used) or ""
    if not most.isdigit() or not now.isdigit() or int(most) >= UNLIMITED:
        return None
    counted = dict(line.split()[:2] for line in (_read(folder / events) or "").splitlines() if len(line.split()) > 1)
    kills = counted.get("oom_kill", "0")
    return Limit(int(most), int(now), int(kills) if kills.isdigit() else 0)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None
