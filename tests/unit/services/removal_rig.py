"""What several tests of removals need: what the disk has, held against what a plan says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from quantchat.services.removal import Removal, plan_removal, remove


def disk_bytes(folder: Path) -> int:
    """What the disk has for the files below a folder, each once."""
    files = (path.lstat() for path in folder.rglob("*"))
    regular = {(status.st_dev, status.st_ino): status for status in files if stat.S_ISREG(status.st_mode)}
    return sum(min(status.st_size, 512 * status.st_blocks) for status in regular.values())


def planned(path: Path, *roots: Path, models: Sequence[ModelInfo] = ()) -> Removal:
    return plan_removal(read_model(path), models, roots)


@contextmanager
def freeing(plan: Removal, top: Path) -> Iterator[None]:
    """Hold what a plan said it frees against what the disk gets back."""
    before = disk_bytes(top)
    yield
    assert before - disk_bytes(top) == plan.freed


def removed(model: ModelInfo, *roots: Path) -> Removal:
    """Plan and remove, and hold the two against each other."""
    plan = plan_removal(model, [], roots)
    with freeing(plan, roots[0]):
        remove(plan, model, [], roots)
    return plan


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """All names below a folder, with sizes and where links point."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, os.readlink(path) if path.is_symlink() else "")
        for path in folder.rglob("*")
    }
