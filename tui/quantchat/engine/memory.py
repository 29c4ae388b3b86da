"""What the engine holds, what an unload gives back, and what running out of it looks like."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any, TypeVar

import psutil
import torch

from quantchat.errors import QuantchatError

E = TypeVar("E", bound=QuantchatError)
CPU_ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory")


def resident_bytes() -> int:
    """Resident set size of this process."""
    return int(psutil.Process().memory_info().rss)


def cuda_bytes() -> int:
    """Bytes that torch holds on all GPUs."""
    if not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count()))


def device_bytes(device: str) -> int:
    """Bytes held on a device; on the CPU the resident set size."""
    return int(torch.cuda.memory_reserved(device)) if device.startswith("cuda") else resident_bytes()


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, shared ones once."""
    tensors = {id(tensor): tensor for group in (model.parameters(), model.buffers()) for tensor in group}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def give_back() -> None:
    """Return freed memory to the driver and the system; glibc alone keeps more than 100 MiB after an unload."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise exhausted memory, which the CPU allocator only tells in words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_ALLOCATOR_WORDS)


def out_of_memory(device: str, kind: type[E]) -> E:
    """Explain it."""
    where = f"The GPU {device}" if device.startswith("cuda") else "This machine"
    return kind(
        f"{where} ran out of memory",
        remedy="Shorten the conversation, unload other models or programs, or take a smaller model.",
        code="out-of-memory",
    )
