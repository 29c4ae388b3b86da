"""Deleting what a plan names, in an order that leaves something to be removed again if it is interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from quantchat.catalog.reader import MARKERS
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError, StorageError
from quantchat.holding import alone_with, holders
from quantchat.services.removal.plans import plan_removal
from quantchat.services.removal.removals import Removal, reason_of, refusal


def remove(agreed: Removal, model: ModelInfo, models: Iterable[ModelInfo], roots: Sequence[Path]) -> None:
    """Delete what a plan names, if it is still what a plan made now would name.

    Raises:
        ModelError: Somebody has the model loaded, or something changed since the plan was made.
        StorageError: The system refused; what was not deleted is still there.
    """
    path = Path(model.path)
    with alone_with(path) as free:
        if not free:
            raise _in_use(path)
        if plan_removal(model, models, roots) != agreed:
            raise refusal(path, "something in it changed since you were asked", "Look again at what goes.")
        try:
            _delete(agreed)
        except OSError as error:
            detail = f"{error.filename}: {reason_of(error)}"
            remedy = "The same command removes the rest."
            raise StorageError(f"{agreed.name} was not removed whole", detail, remedy) from error


def require_free(path: str | Path) -> None:
    """Look whether a running quantchat has a model loaded.

    Raises:
        ModelError: It has.
    """
    with alone_with(path) as free:
        if not free:
            raise _in_use(Path(path))


def _in_use(path: Path) -> ModelError:
    engines = ", ".join(map(str, holders(path)))
    by = f" (process {engines})" if engines else ""
    return refusal(path, f"a running quantchat has it loaded{by}", "Unload it there, or quit that quantchat.")


def _delete(removal: Removal) -> None:
    if removal.shared is not None:
        _delete_shared(removal.shared)
    for file in removal.files:
        Path(file).unlink(missing_ok=True)
    for folder in removal.folders:
        _delete_folder(folder)


def _delete_shared(plan: Any) -> None:
    # One by one: after an interruption in between, what no link leads to any more would stay for ever.
    for blob in sorted(plan.blobs):
        dataclasses.replace(plan, blobs=frozenset([blob])).execute()
        # huggingface_hub logs what the system refuses; this raises it.
        blob.unlink(missing_ok=True)


def _delete_folder(folder: str) -> None:
    """Delete all but the configs first: as long as those are there, the rest is found and can be removed."""
    if not os.path.lexists(folder):
        return
    if os.path.islink(folder):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)
    # By descriptors: a folder that is exchanged for a link meanwhile is not followed.
    for _, _, names, descriptor in os.fwalk(folder):
        for name in names:
            if name not in MARKERS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=descriptor)
    shutil.rmtree(folder)
