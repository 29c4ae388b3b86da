"""The table of checks, and how they are run: side by side, each for its own time, none able to stop another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import NamedTuple

from quantchat.services.background import in_background
from quantchat.services.doctor.caches import look_at_caches
from quantchat.services.doctor.compilers import look_at_compiler, look_at_nvcc
from quantchat.services.doctor.disk import look_at_disks
from quantchat.services.doctor.drivers import look_at_driver
from quantchat.services.doctor.environment import look_at_environment
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.folders import look_at_folders
from quantchat.services.doctor.gpus import look_at_torch
from quantchat.services.doctor.libraries import look_at_imports
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.memory import look_at_limits, look_at_memory
from quantchat.services.doctor.models import look_at_models
from quantchat.services.doctor.packages import look_at_packages, look_at_python
from quantchat.services.doctor.probe import PROBE_SECONDS
from quantchat.services.doctor.settings import look_at_settings
from quantchat.services.doctor.stacks import look_at_stacks
from quantchat.services.doctor.terminal import look_at_terminal
from quantchat.services.doctor.tmux import look_at_tmux

QUICK = 15.0
PROBED = PROBE_SECONDS + QUICK
"""For checks that wait until the libraries are imported elsewhere."""


class Check(NamedTuple):
    """One thing to look at; `title` names it while it runs, `seconds` is what it may take."""

    id: str
    title: str
    look: Callable[[Machine], Iterable[Finding]]
    seconds: float = QUICK


CHECKS = (
    Check("python", "Python", look_at_python),
    Check("packages", "packages", look_at_packages),
    Check("driver", "NVIDIA driver", look_at_driver, 2 * QUICK),
    Check("compilers", "compilers", look_at_compiler, 2 * QUICK),
    Check("memory", "host memory", look_at_memory),
    Check("limits", "limits", look_at_limits),
    Check("disks", "disks", look_at_disks),
    Check("folders", "permissions", look_at_folders),
    Check("settings", "settings", look_at_settings),
    Check("environment", "environment", look_at_environment),
    Check("terminal", "terminal", look_at_terminal),
    Check("tmux", "tmux", look_at_tmux),
    Check("imports", "imports", look_at_imports, PROBED),
    Check("torch", "torch and CUDA", look_at_torch, PROBED),
    Check("nvcc", "nvcc", look_at_nvcc, PROBED),
    Check("caches", "compiled kernels", look_at_caches, PROBED),
    Check("stacks", "other interpreters", look_at_stacks, PROBED),
    Check("models", "models", look_at_models, PROBED),
)
"""In the order of their findings: those that wait for the imports come last, so that the others are soon there."""

Done = tuple[Check, tuple[Finding, ...]]


async def examine(machine: Machine, checks: Sequence[Check] = CHECKS) -> AsyncGenerator[Done]:
    """Run the checks off the event loop and yield each as it is done; never raises for what it finds.

    Left early, it ends the programs that were started; threads that hang in a sick driver or disk are left behind.
    """
    running = [asyncio.create_task(_run(check, machine)) for check in checks]
    try:
        for done in asyncio.as_completed(running):
            yield await done
    finally:
        for task in running:
            task.cancel()
        machine.close()


async def _run(check: Check, machine: Machine) -> Done:
    found: list[Finding] = []

    def look() -> None:
        found.extend(check.look(machine))

    try:
        await asyncio.wait_for(in_background(look), check.seconds)
    except TimeoutError:
        found.append(_unfinished(check, f"No answer within {check.seconds:.0f} s."))
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill still tells what it saw
        found.append(_unfinished(check, f"It could not be looked at: {type(error).__name__}: {error}"))
    return check, tuple(found)


def _unfinished(check: Check, words: str) -> Finding:
    title = f"{check.title[:1].upper()}{check.title[1:]}"
    return Finding(id=f"{check.id}.unfinished", title=title, level="yellow", found=words)
