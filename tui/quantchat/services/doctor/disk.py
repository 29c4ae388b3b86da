"""Room on the disks where models, compiled kernels, sessions and temporary files lie."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quantchat import paths
from quantchat.catalog.roots import hub_cache
from quantchat.domain.memory import GIB, MIB, format_bytes
from quantchat.services.doctor.caches import cache_folder
from quantchat.services.doctor.findings import Finding, Level
from quantchat.services.doctor.machine import Machine

FEW_FILES = 1000


class Need(NamedTuple):
    """A folder and the room that it should have: less than `scarce` is yellow, less than `none` red."""

    id: str
    title: str
    folder: Path
    scarce: int
    none: int
    meaning: str


def needs(machine: Machine) -> list[Need]:
    """Return the folders that grow."""
    download = "a 4-bit model of 7 billion parameters takes 4 to 5 GiB"
    return [
        Need("sessions", "Disk: sessions", paths.sessions_dir(), 256 * MIB, 8 * MIB, "answers cannot be saved"),
        Need("models", "Disk: models", paths.models_dir(), 5 * GIB, 0, download),
        Need("hub", "Disk: hub cache", hub_cache(), 5 * GIB, 0, download),
        Need("kernels", "Disk: kernels", cache_folder(machine), GIB, 64 * MIB, "kernels cannot be compiled"),
        Need("tmp", "Disk: temporary", machine.scratch, GIB, 16 * MIB, "compilers and the engine write there"),
    ]


def look_at_disks(machine: Machine) -> Iterator[Finding]:
    """Compare free space with what is usually needed."""
    for need in needs(machine):
        yield _judge(need)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next((place for place in (folder, *folder.parents) if os.path.exists(place)), Path("/"))


def _judge(need: Need) -> Finding:
    place = existing(need.folder)
    try:
        disk = os.statvfs(place)
    except OSError as error:
        words = f"{place}: {error.strerror}"
        return Finding(id=f"disk.{need.id}", title=need.title, level="yellow", found=words)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    level: Level = "red" if free < need.none else "yellow" if free < need.scarce else "green"
    words = f"{format_bytes(free)} of {format_bytes(total)} free for {need.folder}"
    if disk.f_files and disk.f_favail < FEW_FILES:
        level, words = "red", f"{words}, but only {disk.f_favail} more files fit"
    if level == "green":
        return Finding(id=f"disk.{need.id}", title=need.title, found=words)
    return Finding(
        id=f"disk.{need.id}", title=need.title, level=level, found=f"{words}: {need.meaning}.", fix=_fix(need, place)
    )


def _fix(need: Need, place: Path) -> str:
    """Deleting is not for a program to choose; what is large can be shown, and the hub cache knows what is unused."""
    largest = f"du -xah {shlex.quote(str(place))} 2>/dev/null | sort -rh | head -n 20"
    return f"{_hub_command()} cache prune\n{largest}" if need.id == "hub" else largest


def _hub_command() -> str:
    """Return huggingface_hub's own command, which lies beside this interpreter; of a system's Python it may not."""
    beside = Path(sys.executable).with_name("hf")
    python = shlex.quote(sys.executable)
    return shlex.quote(str(beside)) if beside.exists() else f"{python} -m huggingface_hub.cli.hf"
