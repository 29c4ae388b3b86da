"""The layout of huggingface_hub's cache: `models--owner--name/{refs,snapshots/<commit>}`.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

from pathlib import Path

_PREFIX = "models--"
_COMMIT_LENGTH = 64


def is_hub_repository(folder: Path) -> bool:
    """Whether a folder is a model's folder in a hub cache."""
    return folder.name.startswith(_PREFIX)


def repository_name(folder: Path) -> str:
    """Return `owner/name`, or `name` for the few models without an owner."""
    return folder.name.removeprefix(_PREFIX).replace("--", "/", 1)


def shown_snapshot(repository: Path) -> Path | None:
    """Return the snapshot of the main branch, else the newest; None if nothing was downloaded."""
    snapshots = repository / "snapshots"
    main = _main_commit(repository)
    try:
        if main and (snapshots / main).is_dir():
            return snapshots / main
        found = [(folder.stat().st_mtime, folder.name) for folder in snapshots.iterdir() if folder.is_dir()]
    except OSError:
        return None
    return snapshots / max(found)[1] if found else None


def _main_commit(repository: Path) -> str:
    try:
        with open(repository / "refs" / "main", encoding="ascii") as file:
            commit = file.read(_COMMIT_LENGTH).strip()
    except (OSError, ValueError):
        return ""
    return commit if commit.isalnum() else ""
