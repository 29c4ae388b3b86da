"""What a removal is, and why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantchat.errors import ModelError, StorageError


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal deletes.

    Attributes:
        name: The model.
        files: Deleted one by one, first.
        folders: Deleted with all that is in them.
        freed: Bytes that the disk gets back.
        kept: Bytes that stay because another snapshot needs them, or another hard link holds them.
        notes: What else to know before saying yes, a sentence each.
        shared: huggingface_hub's plan for those of the files that are links into its store of shared blobs.
    """

    name: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    freed: int = 0
    kept: int = 0
    notes: tuple[str, ...] = ()
    shared: Any = None


def refusal(path: Path, reason: str, remedy: str) -> ModelError:
    """Say why it would be wrong to remove something."""
    return ModelError(f"{path} is not removed", f"It would be wrong: {reason}.", remedy, code="not-removed")


def impossible(path: Path, reason: str, remedy: str) -> StorageError:
    """Say why something cannot be removed."""
    return StorageError(f"{path} cannot be removed", f"Nothing was deleted: {reason}.", remedy, code="not-removable")


def reason_of(error: OSError) -> str:
    """Put an error of the system in words."""
    return (error.strerror or type(error).__name__).lower()
