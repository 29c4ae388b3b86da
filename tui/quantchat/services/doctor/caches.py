"""Kernels that were compiled here: which, how large, and which no installation of now would use."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantchat.domain.memory import format_bytes
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.probe import Probe

VARIABLE = "GPTQMODEL_TORCH_EXTENSIONS_DIR"
LISTED = 6


def cache_folder(machine: Machine) -> Path:
    """Return where GPTQModel keeps its builds (see its `utils/cpp.py`): a folder per kernel, in it one per build."""
    folder = machine.env.get(VARIABLE)
    return Path(folder).expanduser() if folder else Path("~/.cache/gptqmodel/torch_extensions").expanduser()


def look_at_caches(machine: Machine) -> Iterator[Finding]:
    """List the compiled kernels, and those that can be deleted."""
    folder = cache_folder(machine)
    yield from _noexec(folder)
    kernels = {kernel.name: _folders(kernel) for kernel in _folders(folder)}
    built = {name: [build for build in builds if libraries(build)] for name, builds in kernels.items()}
    names = sorted(name for name, builds in built.items() if builds)
    if not names:
        words = f"None yet ({folder}); each is compiled once, at its first use"
        yield Finding(id="kernels", title="Compiled kernels", found=words)
    else:
        size = format_bytes(sum(size_of(build) for builds in built.values() for build in builds))
        yield Finding(id="kernels", title="Compiled kernels", found=f"{', '.join(names)}: {size} in {folder}")
    yield from _unfinished([build for builds in kernels.values() for build in builds if not libraries(build)])
    if names:
        yield from _stale(built, machine.probe())


def libraries(build: Path) -> list[Path]:
    """Return the libraries of a build."""
    return [path for path in build.glob("*.so") if path.is_file()]


def size_of(folder: Path) -> int:
    """Add up the files of a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _unfinished(builds: Sequence[Path]) -> Iterator[Finding]:
    if builds:
        words = f"{_named(builds)} hold no library: a compiler was broken off there, or runs now."
        yield Finding(
            id="kernels.unfinished", title="Unfinished builds", level="yellow", found=words, fix=_remove(builds)
        )


def _stale(built: dict[str, list[Path]], probe: Probe) -> Iterator[Finding]:
    """Builds with another fingerprint than that of now: an older torch, CUDA, GPTQModel or card made them."""
    stale = [
        build
        for name, builds in built.items()
        if name in probe.builds
        for build in builds
        if build.resolve() != Path(probe.builds[name]).resolve()
    ]
    if stale:
        size = format_bytes(sum(map(size_of, stale)))
        words = f"{_named(stale)}, {size}: of another torch, CUDA, GPTQModel or card; not used any more."
        yield Finding(id="kernels.stale", title="Stale builds", level="yellow", found=words, fix=_remove(stale))


def _noexec(folder: Path) -> Iterator[Finding]:
    place = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    try:
        forbidden = os.statvfs(place).f_flag & os.ST_NOEXEC
    except OSError:
        return
    if forbidden:
        words = f"{place} is mounted noexec: compiled kernels cannot be loaded from there."
        fix = f"export {VARIABLE}=$HOME/quantchat-kernels"
        yield Finding(id="kernels.noexec", title="Compiled kernels", level="red", found=words, fix=fix)


def _named(builds: Sequence[Path]) -> str:
    shown = [f"{build.parent.name}/{build.name}" for build in builds[:LISTED]]
    more = [f"{len(builds) - LISTED} more"] if len(builds) > LISTED else []
    return ", ".join([*shown, *more])


def _remove(builds: Sequence[Path]) -> str:
    return f"rm -r {shlex.join(map(str, builds))}"
