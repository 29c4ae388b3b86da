"""The memory of this machine and what this process holds of it."""

from __future__ import annotations

import psutil

from quantchat import cgroups


def resident_bytes() -> int:
    """Resident set size of this process."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Bytes of host memory that can be had, within the limits of a container or job."""
    host = psutil.virtual_memory()
    return cgroups.bounded(int(host.total), int(host.available))[1]
