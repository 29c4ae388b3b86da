"""GPUs: the driver's CUDA against torch's, and the cards against what torch holds code for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quantchat.hardware.driver import Card, Driver, Version
from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import newer_driver, pip_install, reach_gpu
from quantchat.services.doctor.probe import Torch

_ARCH = re.compile(r"^(sm|compute)_(\d+)([af]?)$")


def look_at_torch(machine: Machine) -> Iterator[Finding]:
    """Compare torch's CUDA and its machine code with the driver and its cards."""
    torch, driver = machine.probe().torch, machine.driver()
    if torch is None:
        return
    if torch.hip:
        words = f"torch {torch.version} is built for ROCm {torch.hip}; GPTQModel's CUDA kernels do not run on it."
        yield Finding(id="torch.cuda", title="torch and CUDA", level="yellow", found=words)
    elif isinstance(driver, NotAvailable):
        words = f"torch {torch.version}: models run on the CPU"
        yield Finding(id="torch.cuda", title="torch and CUDA", found=words)
    else:
        yield from _with_driver(machine, torch, driver)
        yield from _tried(machine)


def _with_driver(machine: Machine, torch: Torch, driver: Driver) -> Iterator[Finding]:
    if torch.cuda is None:
        words = f"torch {torch.version} is built without CUDA: it cannot use the GPU."
        fix = pip_install([f"torch=={torch.version.partition('+')[0]}"], "--force-reinstall")
        yield Finding(id="torch.cuda", title="torch and CUDA", level="red", found=words, fix=fix)
        return
    yield _cuda_versions(torch.cuda, driver)
    for card in driver.cards:
        yield _arch(card, torch)


def _tried(machine: Machine) -> Iterator[Finding]:
    """Say what came of using the GPUs; who hides them is told as a variable of the environment."""
    gpus = machine.probe().gpus
    if gpus is None or (not gpus.available and "CUDA_VISIBLE_DEVICES" in machine.env):
        return
    said = [f"{device.name} did not add two numbers. {device.error}" for device in gpus.devices if device.error]
    if not gpus.available:
        said = [f"The driver sees a GPU, torch does not: {gpus.said or 'it says that there is none'}"]
    yield from (
        Finding(id="torch.gpu", title="torch and the GPU", level="red", found=words, fix=reach_gpu()) for words in said
    )


def _cuda_versions(cuda: str, driver: Driver) -> Finding:
    built = version_of(cuda)
    if driver.cuda is None or built is None:
        return Finding(id="torch.cuda", title="torch and CUDA", found=f"torch is built with CUDA {cuda}")
    both = f"torch is built with CUDA {cuda}, the driver runs CUDA up to {dotted(driver.cuda)}"
    if driver.cuda[0] < built[0]:
        more, fix = newer_driver()
        words = f"{both}: torch cannot use the GPU before the driver is newer.{more}"
        return Finding(id="torch.cuda", title="torch and CUDA", level="red", found=words, fix=fix)
    if driver.cuda < built:
        # NVIDIA's "minor version compatibility": programs of the same major version run, portable code does not.
        more, fix = newer_driver()
        words = f"{both}: torch runs, kernels that are compiled here may not. A newer driver mends that.{more}"
        return Finding(id="torch.cuda", title="torch and CUDA", level="yellow", found=words, fix=fix)
    return Finding(id="torch.cuda", title="torch and CUDA", found=both)


def _arch(card: Card, torch: Torch) -> Finding:
    identifier, title = f"torch.arch.{card.index}", f"GPU {card.index}"
    if card.capability is None or not torch.archs:
        return Finding(id=identifier, title=title, found=f"{card.name}: its compute capability is not known")
    words = f"{card.name}, compute capability {dotted(card.capability)}"
    if any(runs(arch, card.capability) for arch in torch.archs):
        return Finding(id=identifier, title=title, found=words)
    made = " ".join(torch.archs)
    return Finding(
        id=identifier,
        title=title,
        level="red",
        found=f"{words}: torch {torch.version} holds no code for it ({made}). The CPU is left, or a newer card.",
        fix="quantchat --device cpu",
    )


def runs(arch: str, capability: Version) -> bool:
    """Whether code of an architecture runs on a card.

    Machine code runs on its own major version from its minor version on, portable code on everything newer, and code
    with features of one architecture (`sm_90a`) there alone (CUDA programming guide, "Application compatibility").
    """
    found = _ARCH.match(arch)
    if not found:
        return False
    made = divmod(int(found[2]), 10)
    if found[3] == "a":
        return made == capability
    if found[1] == "compute" and not found[3]:
        return capability >= made
    return capability[0] == made[0] and capability >= made


def version_of(text: str) -> Version | None:
    """Read the first two numbers of a version."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def dotted(version: Version | None) -> str:
    """Write a version of two numbers."""
    return f"{version[0]}.{version[1]}" if version else "unknown"
