"""Real file systems of any size, in memory, for what disks refuse."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Mount = Callable[[str], None]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Mount]:
    """Mount a tmpfs on a new folder; what is given mounts it again with other options. Skips where it may not."""
    folder.mkdir()

    def mount(wanted: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", wanted, "quantchat-test", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"mounting a tmpfs is not permitted here: {made.stderr.strip()}")

    mount(options)
    yield mount
    subprocess.run(["umount", "-l", str(folder)], check=True)
