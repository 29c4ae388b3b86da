"""The NVIDIA driver: whether it is there and answers, and what brings it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quantchat.hardware.gpu import NotAvailable
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.gpus import dotted
from quantchat.services.doctor.machine import NOT_ASKED, Machine
from quantchat.services.doctor.mending import as_root, in_container, newer_driver, pip_install

PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY_CLASS = "0x10de", "0x03"
ABSENT = ("no NVIDIA driver", "no NVIDIA GPU")
KERNEL_LOG = "dmesg | grep -i nvrm"


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
        fix = as_root(KERNEL_LOG)
        yield Finding(id="driver.device", title="NVIDIA GPU", level="red", found=note, fix=fix)


def _without_driver(reason: str) -> Finding:
    cards = nvidia_cards()
    if reason in ABSENT and not cards:
        return Finding(id="driver", title="NVIDIA driver", found=f"{reason}; models run on the CPU")
    words = f"{reason[:1].upper()}{reason[1:]}."
    if cards:
        words += f" {len(cards)} NVIDIA device{'s are' if len(cards) > 1 else ' is'} in this machine."
    more, fix = _mended(reason)
    return Finding(id="driver", title="NVIDIA driver", level="red", found=words + more, fix=fix)


def _mended(reason: str) -> tuple[str, str]:
    """Tell a driver that is absent from one that is only sick, and from a Python package."""
    if "nvidia-ml-py" in reason:
        return "", pip_install(["nvidia-ml-py"])
    if reason in ABSENT:
        return newer_driver()
    if reason == NOT_ASKED:
        return "", ""
    if in_container() and "permission" not in reason:
        return " This is a container: the driver is the host's, which has to be restarted.", ""
    if "not loaded" in reason:
        return "", as_root("modprobe nvidia")
    if "permission" in reason:
        return "", as_root("chmod a+rw /dev/nvidia*")
    lines = [as_root("reboot")] if "updated" in reason else [as_root(KERNEL_LOG), as_root("reboot")]
    return "", "\n".join(lines)


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
