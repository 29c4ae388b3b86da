"""What the CPU can compute with, as far as kernels ask for it."""

from __future__ import annotations

import platform
from pathlib import Path

AVX512_BF16 = frozenset({"xsave", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_bf16"})
"""The flags that GPTQModel's CPU kernel is compiled with (`gptqmodel/utils/cpu_features.py`)."""


def has_avx512_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bf16 numbers with AVX-512; a processor that does not tell has not."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    flags = (line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags"))
    return any(AVX512_BF16.issubset(each) for each in flags)
