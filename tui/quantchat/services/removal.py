"""Delete a model from the disk: first a plan that says what goes, then its execution.

In a hub cache only what no other snapshot needs goes, through huggingface_hub's own plan where it can make one. Links
are unlinked and never followed. Nothing outside the folders that are searched for models is touched.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantchat.catalog.contents import parts_of
from quantchat.domain.models import ModelInfo
from quantchat.errors import ModelError, StorageError
from quantchat.holding import alone_with, holders

REPOSITORY = "models--"
"""How the folders of models in a hub cache begin."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal deletes.

    Attributes:
        name: The model.
        folders: Deleted with all that is in them.
        files: Deleted one by one, after the folders.
        freed: Bytes that the disk gets back.
        kept: Bytes that stay because another snapshot needs them, or another hard link holds them.
        notes: What else to know before saying yes, a sentence each.
        plan: huggingface_hub's own plan, if it made one.
    """

    name: str
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    freed: int = 0
    kept: int = 0
    notes: tuple[str, ...] = ()
    plan: Any = None


def plan_removal(model: ModelInfo, models: Iterable[ModelInfo], roots: Sequence[Path]) -> Removal:
    """Say what the removal of a model deletes; deletes nothing.

    Args:
        model: What to remove.
        models: All models that were found; a folder that holds another of them is not removed.
        roots: The folders that were searched.

    Raises:
        ModelError: It must not be removed, with the reason.
    """
    path = Path(model.path)
    snapshot = _snapshot(path)
    _require_own_place(path if snapshot is None else snapshot, roots)
    try:
        if snapshot is not None:
            return _plan_snapshot(model, path, snapshot)
        if path.is_file():
            return _plan_files(model, path)
        _require_alone(path, model, models)
        return _plan_folder(model, path)
    except OSError as error:
        raise _refusal(path, f"{error.filename} cannot be looked at: {_reason(error)}", "") from error


def execute(removal: Removal, path: str | Path) -> None:
    """Delete what a plan names, unless somebody has the model loaded.

    Args:
        removal: The plan.
        path: The model's own path, which those who load it hold.

    Raises:
        ModelError: It is loaded.
        StorageError: The system refused; what was not deleted is still there.
    """
    with alone_with(path) as free:
        if not free:
            raise _in_use(Path(path))
        try:
            _delete(removal)
        except OSError as error:
            detail = f"{error.filename}: {_reason(error)}"
            raise StorageError(f"{removal.name} was not removed whole", detail) from error


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
    return _refusal(path, f"a running quantchat has it loaded{by}", "Unload it there, or quit that quantchat.")


def _delete(removal: Removal) -> None:
    if removal.plan is not None:
        removal.plan.execute()
    for folder in removal.folders:
        # A link in place of the folder that was looked at is not followed: rmtree refuses it.
        if os.path.lexists(folder):
            shutil.rmtree(folder)
    for file in removal.files:
        Path(file).unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


# What must not be removed


def _require_own_place(path: Path, roots: Sequence[Path]) -> None:
    if path.is_symlink():
        target = os.path.realpath(path)
        raise _refusal(path, f"it is a link to {target}", "Remove the link yourself, or name the folder itself.")
    if not os.path.lexists(path):
        raise _refusal(path, "it is not there any more", "Scan again.")
    real = Path(os.path.realpath(path))
    searched = [Path(os.path.realpath(root)) for root in roots]
    if any(real == root or real in root.parents for root in searched):
        raise _refusal(path, "it is a folder that is searched for models", "Remove single models.")
    if real == Path.home() or real in Path.home().parents or os.path.ismount(real):
        raise _refusal(path, "it is no folder of a model alone", "Delete its files yourself.")
    if not any(root in real.parents for root in searched):
        remedy = "Delete it yourself, or name the folder above it with --models-dir."
        raise _refusal(path, "it lies outside the folders that are searched for models", remedy)


def _require_alone(path: Path, model: ModelInfo, models: Iterable[ModelInfo]) -> None:
    inside = [other.name for other in models if other.path != model.path and path in Path(other.path).parents]
    if inside:
        raise _refusal(path, f"other models lie in it: {', '.join(inside[:5])}", "Remove those first.")


def _refusal(path: Path, reason: str, remedy: str) -> ModelError:
    return ModelError(f"{path} is not removed", f"It would be wrong: {reason}.", remedy, code="not-removed")


# Folders and files


def _plan_folder(model: ModelInfo, path: Path) -> Removal:
    if mounts := [above for above, _, _ in os.walk(path) if os.path.ismount(above)]:
        raise _refusal(path, f"another disk is mounted in it, at {mounts[0]}", "Unmount that first.")
    found = list(_files_below(path))
    freed, kept = _sizes(found)
    links = sum(stat.S_ISLNK(status.st_mode) for _, status in found)
    notes = [f"{links} links go; what they point to stays."] if links else []
    return Removal(name=model.name, folders=(str(path),), freed=freed, kept=kept, notes=tuple(notes))


def _plan_files(model: ModelInfo, path: Path) -> Removal:
    files = parts_of(path)
    freed, kept = _sizes([(file, file.lstat()) for file in files])
    return Removal(name=model.name, files=tuple(map(str, files)), freed=freed, kept=kept)


def _files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for above, folders, names in os.walk(folder):
        for name in (*names, *folders):
            path = Path(above, name)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield path, status


def _sizes(files: Iterable[tuple[Path, os.stat_result]]) -> tuple[int, int]:
    """Return the bytes that go and those that stay, because a hard link elsewhere holds them."""
    links: dict[tuple[int, int], int] = {}
    known: dict[tuple[int, int], os.stat_result] = {}
    for _, status in files:
        identity = (status.st_dev, status.st_ino)
        links[identity] = links.get(identity, 0) + 1
        known[identity] = status
    freed = sum(status.st_size for identity, status in known.items() if links[identity] >= status.st_nlink)
    return freed, sum(status.st_size for status in known.values()) - freed


# The hub cache


def _snapshot(path: Path) -> Path | None:
    """Return the snapshot folder of a hub cache that a path is or lies in."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(REPOSITORY):
            return folder
    return None


def _plan_snapshot(model: ModelInfo, path: Path, snapshot: Path) -> Removal:
    repository = snapshot.parent.parent
    if path != snapshot:
        return _plan_entries(model, repository, parts_of(path))
    return _plan_by_hub(model, repository, snapshot) or _plan_damaged(model, repository, snapshot)


def _plan_by_hub(model: ModelInfo, repository: Path, snapshot: Path) -> Removal | None:
    """Let huggingface_hub say what goes; None if it finds the repository damaged."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(repository.parent)
    # By itself: another repository may hold the same commit, and of two the hub would take either.
    alone = [repo for repo in found.repos if os.path.realpath(repo.repo_path) == os.path.realpath(repository)]
    if not alone:
        return None
    plan = dataclasses.replace(found, repos=frozenset(alone)).delete_revisions(snapshot.name)
    revision = next(revision for revision in alone[0].revisions if revision.commit_hash == snapshot.name)
    return Removal(
        name=model.name,
        folders=tuple(sorted(map(str, (*plan.repos, *plan.snapshots)))),
        files=tuple(sorted(map(str, (*plan.refs, *plan.blobs)))),
        freed=plan.expected_freed_size,
        kept=max(revision.size_on_disk - plan.expected_freed_size, 0),
        notes=tuple(_hub_notes(repository, whole=bool(plan.repos))),
        plan=plan,
    )


def _hub_notes(repository: Path, *, whole: bool) -> Iterator[str]:
    others = sum(entry.is_dir() for entry in (repository / "snapshots").iterdir()) - 1
    if not whole:
        yield f"{others} other snapshot{'s' * (others != 1)} of the repository stay{'s' * (others == 1)}."
    elif unfinished := sum(1 for _ in (repository / "blobs").glob("*.incomplete")):
        yield f"{unfinished} unfinished download{'s' * (unfinished != 1)} of the repository go too."


def _plan_damaged(model: ModelInfo, repository: Path, snapshot: Path) -> Removal:
    """Plan for a repository that the hub's own scan refuses: links to nowhere, refs to commits that are not there."""
    if len(list((repository / "snapshots").iterdir())) == 1:
        plan = _plan_folder(model, repository)
        return msgspec.structs.replace(plan, notes=("The repository is damaged; all of it goes.",))
    plan = _plan_entries(model, repository, [path for path, _ in _files_below(snapshot)])
    refs = [str(ref) for ref in (repository / "refs").rglob("*") if ref.is_file() and _names(ref, snapshot.name)]
    blobs = [file for file in plan.files if not Path(file).is_relative_to(snapshot)]
    return msgspec.structs.replace(plan, folders=(str(snapshot),), files=(*refs, *blobs))


def _names(ref: Path, commit: str) -> bool:
    return ref.read_text(encoding="ascii", errors="replace").strip() == commit


def _plan_entries(model: ModelInfo, repository: Path, entries: Sequence[Path]) -> Removal:
    """Plan to remove some files of a snapshot, and the blobs that no other file of the repository is linked to."""
    going = set(entries)
    others = {_blob(path) for path, _ in _files_below(repository / "snapshots") if path not in going}
    blobs = {blob for path in entries if (blob := _blob(path)) is not None and blob.parent == repository / "blobs"}
    unneeded = sorted(blob for blob in blobs - others if os.path.lexists(blob))
    freed, _ = _sizes([(path, path.lstat()) for path in (*entries, *unneeded)])
    kept = sum(blob.stat().st_size for blob in blobs & others if blob.exists())
    files = tuple(map(str, (*sorted(entries), *unneeded)))
    return Removal(name=model.name, files=files, freed=freed, kept=kept)


def _blob(entry: Path) -> Path | None:
    """Return what an entry of a snapshot is linked to, one step far: a blob may be a link into a shared store."""
    return Path(os.path.abspath(entry.parent / os.readlink(entry))) if entry.is_symlink() else None
