"""Whose processes hold the memory of a GPU."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quantchat.hardware.gpu import GpuProcess


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process with memory on a GPU.

    Attributes:
        bytes: None where the driver does not tell.
        owner: Its user; None if it runs outside this container or has ended.
        command: Name of its program, as foreign text; empty likewise.
    """

    pid: int
    bytes: int | None = None
    owner: str | None = None
    command: str = ""


def holders(processes: Iterable[GpuProcess]) -> tuple[Holder, ...]:
    """Name the owners of processes, the largest first; never raises."""
    found = [_holder(process) for process in processes]
    return tuple(sorted(found, key=lambda holder: -(holder.bytes or 0)))


def _holder(process: GpuProcess) -> Holder:
    import psutil

    owner, command = None, ""
    try:
        running = psutil.Process(process.pid)
        with running.oneshot():
            command, owner = running.name(), running.username()
    except (psutil.Error, ValueError, OverflowError, KeyError):
        # It has ended, is not ours to see, or its user has no name here.
        pass
    return Holder(pid=process.pid, bytes=process.bytes, owner=owner, command=command)
