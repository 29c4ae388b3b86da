"""Owners of processes, of real ones."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from quantchat.hardware.gpu import GpuProcess
from quantchat.hardware.holders import holders
from quantchat.hardware.processor import AVX512_BF16, has_avx512_bf16


def test_own_processes_have_an_owner_and_the_largest_comes_first() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = holders([GpuProcess(os.getpid(), 5), GpuProcess(child.pid, 7), GpuProcess(1, None)])
        child.communicate(b"\n")
    assert [holder.pid for holder in found] == [child.pid, os.getpid(), 1]
    assert found[0].owner == found[1].owner == getpass.getuser()
    assert "python" in found[0].command


def test_a_process_that_has_ended_keeps_its_bytes_only() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (holder,) = holders([GpuProcess(done.pid, 9)])
    assert (holder.bytes, holder.owner, holder.command) == (9, None, "")


def test_numbers_that_are_no_process() -> None:
    assert [holder.owner for holder in holders([GpuProcess(2**31 - 1), GpuProcess(2**40)])] == [None, None]


def test_flags_of_a_processor_are_needed_all(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : fpu {' '.join(AVX512_BF16)}\n")
    assert has_avx512_bf16(info)
    info.write_text(f"processor : 0\nflags : fpu {' '.join(AVX512_BF16 - {'avx512_bf16'})}\n")
    assert not has_avx512_bf16(info)
    assert not has_avx512_bf16(tmp_path / "absent")
