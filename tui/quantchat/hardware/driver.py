"""The NVIDIA driver: its version, the CUDA that it speaks, and what its cards can do.

As a program it prints an `Answer`: a sick driver can be asked so without hanging or crashing whoever asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import msgspec

from quantchat.hardware.gpu import GpuMonitor, GpuSnapshot, NotAvailable

T = TypeVar("T")
Version = tuple[int, int]


class Card(msgspec.Struct, frozen=True):
    """A GPU by its place in NVML's order; `capability` is its compute capability, None if the driver is too old."""

    index: int
    name: str
    capability: Version | None = None


class Driver(msgspec.Struct, frozen=True):
    """An NVIDIA driver that answers.

    Attributes:
        cuda: The newest CUDA whose programs it runs, such as (13, 0).
        notes: Devices that dropped out, one sentence each.
    """

    version: str | None
    cuda: Version | None
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """A driver, or the reason why there is none."""

    driver: Driver | None = None
    reason: str = ""


def driver() -> Driver | NotAvailable:
    """Ask the driver; never raises, and may take seconds on a sick one."""
    monitor = GpuMonitor()
    try:
        seen = monitor.snapshot()
        return seen if isinstance(seen, NotAvailable) else _driver(seen)
    finally:
        monitor.close()


def _driver(seen: GpuSnapshot) -> Driver:
    import pynvml

    number = _optional(pynvml, pynvml.nvmlSystemGetCudaDriverVersion_v2)
    version = _optional(pynvml, pynvml.nvmlSystemGetDriverVersion)
    cards = tuple(Card(gpu.index, gpu.name, gpu.capability) for gpu in seen.devices)
    return Driver(version, (number // 1000, number % 1000 // 10) if number else None, cards, seen.notes)


def _optional(nvml: ModuleType, query: Callable[[], T]) -> T | None:
    try:
        return query()
    except (nvml.NVMLError, UnicodeDecodeError):
        return None


if __name__ == "__main__":
    found = driver()
    answer = Answer(reason=found.reason) if isinstance(found, NotAvailable) else Answer(found)
    sys.stdout.buffer.write(msgspec.json.encode(answer))
