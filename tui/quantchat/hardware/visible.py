"""Which GPUs the engine may use, numbered as torch numbers them: `cuda:0` need not be the driver's first."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import msgspec

from quantchat.hardware.gpu import GpuDevice

VARIABLE = "CUDA_VISIBLE_DEVICES"
_NUMBER = re.compile(r"\+?(\d{1,6})")


def visible(devices: Sequence[GpuDevice], environ: Mapping[str, str] = os.environ) -> tuple[GpuDevice, ...]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` leaves, each with the index that it has for CUDA's programs.

    It lists indices or beginnings of UUIDs; the first that is no device ends the list, and one that is listed twice
    empties it (CUDA C++ Programming Guide, "CUDA Environment Variables"; `torch.cuda._parse_visible_devices`). Of a
    slice of a GPU (MIG) only the existence is known. The engine has the devices ordered as the driver orders them
    (`CUDA_DEVICE_ORDER` in `engine/quiet.py`).
    """
    wish = environ.get(VARIABLE)
    if wish is None:
        return tuple(devices)
    chosen: list[GpuDevice] = []
    for word in wish.split(","):
        device = _named(word.strip(), devices)
        if device is None:
            break
        if any(device.uuid == other.uuid and device.index == other.index for other in chosen):
            return ()
        chosen.append(device)
    return tuple(msgspec.structs.replace(device, index=place) for place, device in enumerate(chosen))


def _named(word: str, devices: Sequence[GpuDevice]) -> GpuDevice | None:
    if word.startswith("MIG-"):
        return GpuDevice(index=-1, name=f"a slice of a GPU ({word})", uuid=word)
    if word.startswith("GPU-"):
        found = [device for device in devices if device.uuid is not None and device.uuid.startswith(word)]
        return found[0] if len(found) == 1 else None
    number = _NUMBER.match(word)
    return next((device for device in devices if number and device.index == int(number[1])), None)
