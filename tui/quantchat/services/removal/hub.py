"""Removal from a hub cache: snapshots share blobs, and repositories share blobs in the store of the whole cache.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantchat.catalog.contents import parts_of
from quantchat.services.removal.disk import files_below, sizes, taken
from quantchat.services.removal.removals import Removal, refusal

REPOSITORY = "models--"
"""How the folders of models in a hub cache begin."""
NOT_THERE = ".no_exist"
"""Folder of notes that a file is not in a commit."""
TREES = "trees"
"""Folder of the lists of files of commits."""


def snapshot_of(path: Path) -> Path | None:
    """Return the snapshot folder of a hub cache that a path is or lies in."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(REPOSITORY):
            return folder
    return None


def locks_of(path: Path, snapshot: Path | None) -> Iterator[Path]:
    """Yield the files that a download into a repository, or into a folder of its own, has locked."""
    if snapshot is None:
        # What `hf download --local-dir` leaves in the folder.
        folder = path if path.is_dir() else path.parent
        yield from (folder / ".cache" / "huggingface").rglob("*.lock")
    else:
        repository = snapshot.parent.parent
        yield from (repository.parent / ".locks" / repository.name).glob("*.lock")


def plan_in_cache(name: str, path: Path, snapshot: Path) -> Removal:
    """Plan the removal of a snapshot, or of a folder or a GGUF file in one."""
    repository = snapshot.parent.parent
    inner = [place for place in (path, *path.parents) if snapshot in place.parents and place.is_dir()]
    for folder in (repository / "blobs", snapshot.parent, *inner):
        if folder.is_symlink():
            reason = f"{folder} is a link to {os.path.realpath(folder)}"
            raise refusal(path, reason, "Remove the model there yourself.")
    entries = [entry for entry, _ in files_below(snapshot)]
    going = [entry for entry, _ in files_below(path)] if path.is_dir() else parts_of(path)[::-1]
    if not set(entries) <= set(going):
        return _plan_folder(name, repository, path) if path.is_dir() else _plan_entries(name, repository, going)
    others = [other for other in snapshot.parent.iterdir() if other != snapshot and other.is_dir()]
    return _plan_snapshot(name, repository, snapshot, len(others)) if others else _plan_repository(name, repository)


def _plan_repository(name: str, repository: Path) -> Removal:
    found = list(files_below(repository))
    freed, kept = sizes(found)
    blobs = [blob for blob, _ in found if blob.parent == repository / "blobs"]
    shared = _shared(repository.parent, blobs)
    unfinished = sum(blob.name.endswith(".incomplete") for blob in blobs)
    notes = [f"{unfinished} unfinished download{'s' * (unfinished != 1)} of the repository go too."] * bool(unfinished)
    plan = Removal(name=name, folders=(str(repository),), freed=freed, kept=kept, notes=tuple(notes))
    return _with_shared(plan, shared, blobs)


def _plan_snapshot(name: str, repository: Path, snapshot: Path, others: int) -> Removal:
    plan = _plan_folder(name, repository, snapshot)
    about = list(_about(repository, snapshot.name))
    noted = [path for path in (repository / NOT_THERE / snapshot.name,) if _is_folder(path)]
    stay = f"{others} other snapshot{'s' * (others != 1)} of the repository stay{'s' * (others == 1)}."
    return msgspec.structs.replace(
        plan,
        files=(*plan.files, *map(str, about)),
        folders=(*plan.folders, *map(str, noted)),
        freed=plan.freed + sizes((file, file.lstat()) for file in about)[0],
        notes=(*plan.notes, stay),
    )


def _plan_folder(name: str, repository: Path, folder: Path) -> Removal:
    """Plan to remove a snapshot or a folder in one, and the blobs that nothing else is linked to."""
    plan = _plan_entries(name, repository, [entry for entry, _ in files_below(folder)])
    blobs = (file for file in plan.files if not Path(file).is_relative_to(folder))
    return msgspec.structs.replace(plan, files=tuple(blobs), folders=(str(folder),))


def _about(repository: Path, commit: str) -> Iterator[Path]:
    """Yield the files that speak of a commit: branches and tags, and the list of its files."""
    refs = sorted(ref for ref in (repository / "refs").rglob("*") if ref.is_file() and not ref.is_symlink())
    yield from (ref for ref in refs if _names(ref, commit))
    tree = repository / TREES / f"{commit}.json"
    if tree.is_file() and not tree.is_symlink():
        yield tree


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _names(ref: Path, commit: str) -> bool:
    return ref.read_text(encoding="ascii", errors="replace").strip() == commit


def _plan_entries(name: str, repository: Path, entries: Sequence[Path]) -> Removal:
    """Plan to remove some files of a snapshot, and the blobs that no other file of the repository is linked to."""
    going = set(entries)
    others = {_blob(path) for path, _ in files_below(repository / "snapshots") if path not in going}
    linked = {blob for path in entries if (blob := _blob(path)) is not None and blob.parent == repository / "blobs"}
    blobs = sorted(blob for blob in linked - others if os.path.lexists(blob))
    freed, kept = sizes((path, path.lstat()) for path in (*entries, *blobs))
    kept += sum(_payload(blob) for blob in linked & others)
    # The entries last: what an interruption leaves is still shown, and can be removed as well.
    plan = Removal(name=name, files=tuple(map(str, (*blobs, *entries))), freed=freed, kept=kept)
    return _with_shared(plan, _shared(repository.parent, blobs), blobs)


def _blob(entry: Path) -> Path | None:
    """Return what an entry of a snapshot is linked to, one step far: a blob may be a link into the shared store."""
    return Path(os.path.abspath(entry.parent / os.readlink(entry))) if entry.is_symlink() else None


def _payload(blob: Path) -> int:
    try:
        return taken(blob.stat())
    except OSError:
        return 0


# The store of shared blobs


def _shared(cache: Path, blobs: Iterable[Path]) -> Any:
    """Let huggingface_hub plan the removal of blobs that are links; it knows who else needs what they point to."""
    links = [blob for blob in blobs if blob.is_symlink()]
    if not links:
        return None
    from huggingface_hub import CachedFileInfo, HFCacheInfo

    files = [
        CachedFileInfo(
            file_name=link.name,
            file_path=link / "entry",
            blob_path=link,
            size_on_disk=0,
            blob_last_accessed=0.0,
            blob_last_modified=0.0,
        )
        for link in links
    ]
    known = HFCacheInfo(size_on_disk=0, repos=frozenset(), incomplete_files=frozenset(), warnings=[], cache_dir=cache)
    return dataclasses.replace(known.delete_files(*files), files=frozenset())


def _with_shared(plan: Removal, shared: Any, blobs: Iterable[Path]) -> Removal:
    if shared is None:
        return plan
    freed = int(shared.expected_freed_size)
    kept = sum(_payload(blob) for blob in blobs if blob.is_symlink()) - freed
    return msgspec.structs.replace(plan, shared=shared, freed=plan.freed + freed, kept=plan.kept + max(kept, 0))
