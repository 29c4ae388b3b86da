"""GPUs: the driver, its CUDA against torch's, and the cards against what torch holds code for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from quantchat.hardware.driver import Card, Driver, Version
from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import pip_install, update_driver
from quantchat.services.doctor.probe import Torch

PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY_CLASS = "0x10de", "0x03"
ABSENT = ("no NVIDIA driver", "no NVIDIA GPU")
_ARCH = re.compile(r"^(sm|compute)_(\d+)([af]?)$")


def look_at_driver(machine: Machine) -> Iterator[Finding]:
    """Ask the driver for its version and its cards."""
    driver = machine.driver()
    if isinstance(driver, NotAvailable):
        yield _without_driver(driver.reason)
        return
    cards = ", ".join(f"{card.name} ({dotted(card.capability)})" for card in driver.cards)
    speaks = f", runs CUDA up to {dotted(driver.cuda)}" if driver.cuda else ""
    yield Finding(id="driver", title="NVIDIA driver", found=f"{driver.version or 'unknown version'}{speaks}: {cards}")
    for note in driver.notes:
        yield Finding(id="driver.device", title="NVIDIA GPU", level="red", found=note, fix="sudo dmesg | grep -i nvrm")


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


def _with_driver(machine: Machine, torch: Torch, driver: Driver) -> Iterator[Finding]:
    if torch.cuda is None:
        words = f"torch {torch.version} is built without CUDA: it cannot use the GPU."
        fix = pip_install([f"torch=={torch.version.partition('+')[0]}"], "--force-reinstall")
        yield Finding(id="torch.cuda", title="torch and CUDA", level="red", found=words, fix=fix)
        return
    yield _cuda_versions(torch.cuda, driver)
    for card in driver.cards:
        yield _arch(card, torch)
    hidden = machine.env.get("CUDA_VISIBLE_DEVICES")
    if not torch.available and hidden is None:
        words = f"The driver sees a GPU, torch does not: {torch.said or 'it says that there is none'}"
        yield Finding(id="torch.gpu", title="torch and the GPU", level="red", found=words, fix="nvidia-smi")
    for device in torch.devices:
        if device.error:
            words = f"{device.name} did not add two numbers. {device.error}"
            yield Finding(id="torch.gpu", title="torch and the GPU", level="red", found=words, fix="nvidia-smi")


def _without_driver(reason: str) -> Finding:
    cards = nvidia_cards()
    if reason in ABSENT and not cards:
        return Finding(id="driver", title="NVIDIA driver", found=f"{reason}; models run on the CPU")
    words = f"{reason[:1].upper()}{reason[1:]}."
    if cards:
        words += f" {len(cards)} NVIDIA device{'s are' if len(cards) > 1 else ' is'} in this machine."
    fix = "sudo reboot" if "updated" in reason else update_driver()
    return Finding(id="driver", title="NVIDIA driver", level="red", found=words, fix=fix)


def nvidia_cards(devices: Path = PCI) -> list[str]:
    """Return the PCI addresses of NVIDIA's display devices, which the system knows without any driver."""
    found = []
    for device in sorted(devices.glob("*")):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        if vendor.strip() == NVIDIA and kind.startswith(DISPLAY_CLASS):
            found.append(device.name)
    return found


def _cuda_versions(cuda: str, driver: Driver) -> Finding:
    built = version_of(cuda)
    if driver.cuda is None or built is None:
        return Finding(id="torch.cuda", title="torch and CUDA", found=f"torch is built with CUDA {cuda}")
    both = f"torch is built with CUDA {cuda}, the driver runs CUDA up to {dotted(driver.cuda)}"
    if driver.cuda[0] < built[0]:
        words = f"{both}: torch cannot use the GPU before the driver is newer."
        return Finding(id="torch.cuda", title="torch and CUDA", level="red", found=words, fix=update_driver())
    if driver.cuda < built:
        # NVIDIA's "minor version compatibility": programs of the same major version run, portable code does not.
        words = f"{both}: torch runs, kernels that are compiled here may not. A newer driver mends that."
        return Finding(id="torch.cuda", title="torch and CUDA", level="yellow", found=words, fix=update_driver())
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
