"""Limits that a container, a job or a login puts on this process's memory: Linux control groups, version 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60
FILE_CACHE = frozenset({"inactive_file", "active_file", "slab_reclaimable"})
"""Lines of `memory.stat` for what the kernel takes back before it kills anything."""


class Limit(msgspec.Struct, frozen=True):
    """A limit on the memory of this process and its siblings, in bytes.

    Attributes:
        used: What counts against it, files that were read included.
        cached: How much of that is files, which give way to programs.
        kills: How often the kernel killed a process for it.
    """

    limit: int
    used: int
    cached: int = 0
    kills: int = 0

    @property
    def free(self) -> int:
        """Bytes that can still be had."""
        return max(self.limit - max(self.used - self.cached, 0), 0)


class Files(msgspec.Struct, frozen=True):
    """Names of a group's files; the prefix is that of figures which count the groups below too."""

    limits: tuple[str, ...]
    used: str
    kills: str
    prefix: str = ""


FIRST = Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", "memory.oom_control", "total_")
# Above `memory.high` nothing is killed, but slowed down until it is of no use.
SECOND = Files(("memory.max", "memory.high"), "memory.current", "memory.events")


def limits(root: Path = ROOT, process: Path = OWN) -> list[Limit]:
    """Return the limits of the groups that this process is in, its own first; none on other systems."""
    return [limit for folder, files in _groups(root, process) if (limit := _limit(folder, files)) is not None]


def bounded(total: int, available: int) -> tuple[int, int]:
    """Return the memory that there is and that can be had, where the machine has so much."""
    found = limits()
    return min([total, *(limit.limit for limit in found)]), min([available, *(limit.free for limit in found)])


def _groups(root: Path, process: Path) -> Iterator[tuple[Path, Files]]:
    for line in (_read(process) or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from ((folder, SECOND) for folder in _upwards(root, path))
        elif "memory" in controllers.split(","):
            yield from ((folder, FIRST) for folder in _upwards(root / "memory", path))


def _upwards(root: Path, path: str) -> list[Path]:
    """A group and those above it. A container sees its own group as the root, under whatever path."""
    own = root / path.lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]


def _limit(folder: Path, files: Files) -> Limit | None:
    stated = [_read(folder / name) or "" for name in files.limits]
    most = min((int(text) for text in stated if text.isdigit()), default=UNLIMITED)
    used = _read(folder / files.used) or ""
    if most >= UNLIMITED or not used.isdigit():
        return None
    figures = _figures(folder / "memory.stat")
    cached = sum(figures.get(files.prefix + name, 0) for name in FILE_CACHE)
    return Limit(most, int(used), cached, _figures(folder / files.kills).get("oom_kill", 0))


def _figures(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_read(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
