"""Memory and disks of this machine, and the memory of a process on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quantchat import cgroups

if TYPE_CHECKING:
    import psutil


class HostMemory(msgspec.Struct, frozen=True):
    """Host memory in bytes, of a container or job what its limits leave.

    `available` is what can be had without swapping; `used` is the rest.
    """

    total: int
    used: int
    available: int


def host_memory() -> HostMemory:
    """Return the memory of this machine now, as far as this process may use it."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = cgroups.bounded(memory.total, memory.available)
    return HostMemory(total, total - available, available)


def machine_bytes() -> int:
    """Return the memory that is built into this machine."""
    import psutil

    return int(psutil.virtual_memory().total)


def process_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process and its children; None if it is gone or not ours to see.

    Pages that they share are counted for each.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        total = int(process.memory_info().rss)
        children = process.children(recursive=True)
    except (psutil.Error, ValueError, OverflowError):
        return None
    return total + sum(_resident(child) for child in children)


def peak_process_bytes(pid: int) -> int | None:
    """Return the most resident bytes that a process ever held; None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            peak = next(line for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(peak.split()[1]) * 1024


def free_disk(folder: Path) -> int | None:
    """Return the free bytes where a folder is, or will be; None if that cannot be told."""
    for place in (folder, *folder.parents):
        try:
            status = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return status.f_bavail * status.f_frsize
    return None


def _resident(process: psutil.Process) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
