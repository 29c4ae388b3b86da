"""llama.cpp through the plain bindings of llama-cpp-python: its log, its devices; the one module that imports them."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from functools import cache
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as api

__all__ = ["Gpu", "Words", "api", "gpus", "start"]

logger = logging.getLogger(__name__)

WARNING, CONTINUED = 3, 5
"""Levels of ggml's log; a line that goes on has the level of the one before."""
KEPT_LINES = 40
GPU_KINDS = (1, 2)
"""`GGML_BACKEND_DEVICE_TYPE_GPU` and `_IGPU`."""


class Words:
    """What llama.cpp said last at the levels of warnings and errors: the only place where it tells why it failed."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._level = 0
        self._callback = api.llama_log_callback(self._take)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes | None, _: Any) -> None:
        self._level = self._level if level == CONTINUED else level
        if self._level < WARNING or not text:
            return
        line = text.decode("utf-8", "replace").rstrip()
        if line:
            self._lines.append(line)
            logger.warning("%s", line)

    def clear(self) -> None:
        """Forget them: something new begins."""
        self._lines.clear()

    @property
    def text(self) -> str:
        """All of them, a line each."""
        return "\n".join(self._lines)


class Gpu(NamedTuple):
    """A GPU that this build of llama.cpp computes on; memory in bytes, `place` its number among them."""

    device: str
    place: int
    free: int
    total: int


@cache
def start() -> Words:
    """Begin to listen and let llama.cpp set itself up; once in a process, as it keeps whom it speaks to."""
    words = Words()
    api.llama_backend_init()
    return words


def gpus() -> list[Gpu]:
    """Return the GPUs; empty where there are none or the build has no code for them."""
    library = _ggml()
    if library is None or not api.llama_supports_gpu_offload():
        return []
    found: list[Gpu] = []
    for index in range(library.ggml_backend_dev_count()):
        device = ctypes.c_void_p(library.ggml_backend_dev_get(ctypes.c_size_t(index)))
        if library.ggml_backend_dev_type(device) in GPU_KINDS:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = (library.ggml_backend_dev_name(device) or b"").decode("utf-8", "replace")
            found.append(Gpu(_device_name(name, len(found)), len(found), free.value, total.value))
    return found


def _device_name(name: str, place: int) -> str:
    """Name a device as the rest of quantchat does: `cuda:0` for ggml's `CUDA0`."""
    kind = name.rstrip("0123456789").lower() or "gpu"
    return f"{kind}:{name[len(kind) :] or place}"


def _ggml() -> Any:
    """The library that knows the devices; the bindings do not declare these calls."""
    try:
        from llama_cpp._ggml import libggml
    except (ImportError, OSError, RuntimeError):
        return None
    for name, restype in (
        ("ggml_backend_dev_count", ctypes.c_size_t),
        ("ggml_backend_dev_get", ctypes.c_void_p),
        ("ggml_backend_dev_type", ctypes.c_int),
        ("ggml_backend_dev_name", ctypes.c_char_p),
        ("ggml_backend_dev_memory", None),
    ):
        if not hasattr(libggml, name):
            return None
        getattr(libggml, name).restype = restype
    return libggml
