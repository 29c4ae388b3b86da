"""How glibc's heap keeps and gives back what was freed; elsewhere than on Linux with glibc nothing here does anything.

By default a buffer of some megabytes is mapped anew each time, and what is freed at the heap's end goes back at once.
The next pass then has its pages zeroed by the kernel once more: measured with a 135M model on two cores, 12,500 page
faults in a prefill of 1,500 tokens and 1,300 in one of 40, which took 100 ms in place of 72.
"""

from __future__ import annotations

import ctypes
import sys

# The numbers of these parameters are glibc's own, from <malloc.h>; the values are bytes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT = 256 << 20
"""Freed bytes at the heap's end that stay for the next pass: the activations of a chunk, the cache of a session."""
LARGEST = 32 << 20
"""The largest buffer that comes from the heap, and glibc's upper bound; weights are larger and mapped on their own."""


def keep_freed() -> bool:
    """Let freed memory stay until `trim`; return whether both bounds were set."""
    mallopt = _function("mallopt")
    # Each also switches off glibc's own moving of both bounds.
    return bool(mallopt and mallopt(TRIM_THRESHOLD, KEPT) and mallopt(MMAP_THRESHOLD, LARGEST))


def trim() -> None:
    """Return what is free to the system; glibc alone keeps more than 100 MiB after an unload."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
