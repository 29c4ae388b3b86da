"""Small words of a load that both processes speak; the policies over them are in `kernels` and `placement`."""

from __future__ import annotations

import msgspec


class KernelRefusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kernel that was not taken, why, and what would change that (empty if nothing would)."""

    kernel: str
    reason: str
    remedy: str = ""


class DeviceShare(msgspec.Struct, frozen=True):
    """A device and its share of a model's layers; shares are weighed against each other, 0 means by free memory."""

    device: str
    share: float = 0.0
