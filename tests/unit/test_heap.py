"""Freed memory stays for the next pass, and goes back when asked: counted in page faults of a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from quantchat.engine import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [bytearray(12 << 20) for _ in range(4)]
    for buffer in buffers:
        buffer[::4096] = bytes(len(buffer) // 4096)
    del buffer, buffers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert heap.keep_freed()
again = [faults() for _ in range(3)][-1]
heap.trim()
print(again, faults())
"""
PAGES = 4 * (12 << 20) // 4096


def faults(how: str) -> tuple[int, int]:
    """Page faults of a pass that follows others, and of one after the memory was given back."""
    told = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True, timeout=60)
    again, after_trim = map(int, told.stdout.split())
    return again, after_trim


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    again, after_trim = faults("kept")
    assert again < PAGES / 20
    assert after_trim > PAGES / 2
    assert faults("as it is")[0] > PAGES / 2
