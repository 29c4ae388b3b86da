"""Limits of control groups: written as files, and a real one where this process may make it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantchat.cgroups import Limit, limits
from quantchat.domain.memory import GIB, MIB

LOOK = """
import json, sys
import msgspec
from quantchat import cgroups
from quantchat.hardware.host import host_memory, machine_bytes
limit = min(cgroups.limits(), key=lambda limit: limit.limit)
print(json.dumps([msgspec.to_builtins(host_memory()), machine_bytes(), limit.used, limit.cached]))
"""


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def test_limits_of_both_versions(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("12:cpu,memory:/docker/abc\n0::/user.slice/chat.scope\n")
    tree(
        root,
        {
            "user.slice/chat.scope/memory.max": "max",
            "user.slice/chat.scope/memory.current": "100",
            "user.slice/memory.max": "4096",
            "user.slice/memory.current": "1024",
            "user.slice/memory.stat": "anon 400\nfile 500\ninactive_file 300\nactive_file 200\nslab_reclaimable 24",
            "user.slice/memory.events": "low 0\noom 3\noom_kill 2",
            # In a container the group itself is mounted where the root is.
            "memory/memory.limit_in_bytes": "8192",
            "memory/memory.usage_in_bytes": "2048",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 100",
            "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1",
        },
    )
    first, second = limits(root, process)
    assert (first, first.free) == (Limit(8192, 2048, 600, 1), 8192 - 1448)
    assert (second, second.free) == (Limit(4096, 1024, 524, 2), 4096 - 500)


def test_the_limit_that_only_slows_down_counts_too(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("0::/\n")
    tree(root, {"memory.max": "max", "memory.high": "4096", "memory.current": "5000"})
    assert limits(root, process) == [Limit(4096, 5000)]
    assert limits(root, process)[0].free == 0


def test_no_limits(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("4:memory:/\n")
    tree(root, {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "5"})
    assert limits(root, process) == []
    assert limits(tmp_path / "none", tmp_path / "absent") == []


@pytest.mark.parametrize("text", ["", "::", "0::/\0", "x", "4:memory", "\udcff"])
def test_lines_that_say_nothing(tmp_path: Path, text: str) -> None:
    process = tmp_path / "self"
    process.write_text(text, errors="surrogateescape")
    assert limits(tmp_path, process) == []


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A real group of the first version with 3 GiB."""
    folder = Path(f"/sys/fs/cgroup/memory/quantchat-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(3 * GIB))
    except OSError as error:
        pytest.skip(f"no group may be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_process_in_a_group_has_what_the_group_has(group: Path, tmp_path: Path) -> None:
    """Files that were written count against the group, and are still free."""
    fill = f"echo $$ > {group}/cgroup.procs; head -c 200M /dev/zero > {tmp_path}/file"
    command = f"{fill}; exec {sys.executable} -c '{LOOK}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    memory, machine, used, cached = json.loads(done.stdout)
    assert memory["total"] == 3 * GIB < machine
    assert used > cached > 150 * MIB
    assert memory["available"] > 3 * GIB - 100 * MIB
