"""`hardware.host` on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

from quantchat.hardware.host import host_memory, process_bytes

HOLD = "import sys; held = bytearray(64 << 20); print('ready', flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {HOLD!r}]).returncode)"


def test_host_memory_adds_up() -> None:
    memory = host_memory()
    assert 0 < memory.available <= memory.total
    assert memory.used + memory.available == memory.total


def test_a_process_is_counted_with_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        counted = process_bytes(parent.pid)
        parent.communicate()
    assert counted is not None
    assert counted > 64 << 20
    assert process_bytes(parent.pid) is None


def test_numbers_that_are_no_process() -> None:
    assert process_bytes(-1) is None
    assert process_bytes(2**40) is None
    assert process_bytes(os.getpid()) is not None
