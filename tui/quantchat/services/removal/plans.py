"""What would go with a model, and what must not."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from quantchat.catalog.contents import parts_of
from quantchat.catalog.gguf_model import SUFFIX
from quantchat.catalog.reader import MARKERS
from quantchat.catalog.reading import WEIGHTS
from quantchat.catalog.triage import listed
from quantchat.domain.models import ModelInfo
from quantchat.holding import alone_with, holders
from quantchat.services.removal.disk import files_below, folders_below, locked_folder, mounted_in, sizes
from quantchat.services.removal.hub import locks_of, plan_in_cache, snapshot_of
from quantchat.services.removal.links import Going
from quantchat.services.removal.removals import Removal, impossible, reason_of, refusal
from quantchat.services.servers import require_here


def plan_removal(model: ModelInfo, models: Iterable[ModelInfo], roots: Sequence[Path]) -> Removal:
    """Say what the removal of a model deletes; deletes nothing.

    Args:
        model: What to remove.
        models: All models that were found; a folder that holds another of them, or files of it, is not removed.
        roots: The folders that were searched.

    Raises:
        ModelError: It must not be removed, with the reason.
        StorageError: The system would not let it be removed.
    """
    require_here(model, "be deleted", f"`quantchat servers remove {model.server}` forgets the server")
    path = Path(model.path)
    snapshot = snapshot_of(path)
    others = [other for other in models if other.path != model.path]
    try:
        for place in (path,) if snapshot is None else (snapshot, snapshot.parent.parent):
            _require_own_place(place, roots)
        _require_alone(path, others, snapshot)
        plan = _plan(model.name, path, snapshot)
        going = Going(plan)
        _require_unneeded(path, going, others)
        _require_no_download(path, snapshot)
        _require_deletable(path, plan)
    except OSError as error:
        reason = f"{error.filename} cannot be looked at, {reason_of(error)}"
        raise impossible(path, reason, "Ask its owner, or run this as its owner.") from error
    return msgspec.structs.replace(plan, notes=(*plan.notes, *_notes(model, going)))


def _plan(name: str, path: Path, snapshot: Path | None) -> Removal:
    if snapshot is not None:
        return plan_in_cache(name, path, snapshot)
    return _plan_files(name, path) if path.is_file() else _plan_folder(name, path)


def _plan_folder(name: str, path: Path) -> Removal:
    found = list(files_below(path))
    freed, kept = sizes(found)
    links = sum(stat.S_ISLNK(status.st_mode) for _, status in found)
    words = "A link goes; what it points to stays." if links == 1 else f"{links} links go; what they point to stays."
    notes = [words] if links else []
    if inner := sorted({file.relative_to(path).parts[0] for file, _ in found if file.parent != path}):
        notes.append(f"Folders in it go too: {listed(inner)}.")
    return Removal(name=name, folders=(str(path),), freed=freed, kept=kept, notes=tuple(notes))


def _plan_files(name: str, path: Path) -> Removal:
    # The first part, by which the model is known, goes last: what an interruption leaves can be removed as well.
    files = parts_of(path)[::-1]
    freed, kept = sizes((file, file.lstat()) for file in files)
    return Removal(name=name, files=tuple(map(str, files)), freed=freed, kept=kept)


def _notes(model: ModelInfo, going: Going) -> Iterator[str]:
    for copy in model.copies[:5]:
        if going.is_behind(copy):
            yield f"What is at {copy} are links to it, which lead nowhere then."
        else:
            yield f"The same model also lies at {copy}, and stays there."
    if any(problem.code == "being-copied" for problem in model.problems):
        yield "Somebody seems to be writing to it at this moment."


# What must not be removed


def _require_own_place(path: Path, roots: Sequence[Path]) -> None:
    if path.is_symlink():
        target = os.path.realpath(path)
        raise refusal(path, f"it is a link to {target}", "Remove the link yourself, or name the folder itself.")
    if not os.path.lexists(path):
        raise refusal(path, "it is not there any more", "Scan again.")
    real = Path(os.path.realpath(path))
    searched = [Path(os.path.realpath(root)) for root in roots]
    if any(real == root or real in root.parents for root in searched):
        raise refusal(path, "it is a folder that is searched for models", "Remove single models.")
    home = Path(os.path.realpath(Path.home()))
    if real == home or real in home.parents:
        raise refusal(path, "it is no folder of a model alone", "Delete its files yourself.")
    if not any(root in real.parents for root in searched):
        remedy = "Delete it yourself, or name the folder above it with --models-dir."
        raise refusal(path, "it lies outside the folders that are searched for models", remedy)


def _require_alone(path: Path, others: Iterable[ModelInfo], snapshot: Path | None) -> None:
    inside = [other.name for other in others if path in Path(other.path).parents]
    if not inside and snapshot is None and path.is_dir():
        below = (folder for folder in folders_below(path) if folder != path)
        inside = [os.path.relpath(folder, path) for folder in below if _is_model(folder)]
    if inside:
        raise refusal(path, f"other models lie in it: {listed(inside)}", "Remove those first.")


def _is_model(folder: Path) -> bool:
    # No scan looks below a model: checkpoints of a training are in no list.
    names = os.listdir(folder)
    if any(name.endswith(SUFFIX) for name in names):
        return True
    return not set(MARKERS).isdisjoint(names) and any(name.endswith(WEIGHTS) for name in names)


def _require_unneeded(path: Path, going: Going, others: Iterable[ModelInfo]) -> None:
    if broken := [other.name for other in others if going.is_behind(other.path)]:
        raise refusal(path, f"files of other models are links to it: {listed(broken)}", "Remove those first.")


def _require_no_download(path: Path, snapshot: Path | None) -> None:
    for lock in locks_of(path, snapshot):
        with alone_with(lock) as free:
            if not free:
                by = ", ".join(map(str, holders(lock)))
                reason = f"a download into it is under way{f' (process {by})' if by else ''}"
                raise refusal(path, reason, "Wait for it, or stop it.")


# What cannot be removed


def _require_deletable(path: Path, plan: Removal) -> None:
    going = [Path(entry) for entry in (*plan.files, *plan.folders)]
    if mount := mounted_in(going):
        raise refusal(path, f"another disk is mounted in it, at {mount}", "Unmount that first.")
    if (folder := locked_folder(going)) is not None:
        reason = f"{folder} may not be changed by you{_owner(folder)}"
        raise impossible(path, reason, "Run this as its owner, or let the owner remove it.")


def _owner(folder: Path) -> str:
    try:
        return f" but by {pwd.getpwuid(folder.stat().st_uid).pw_name}"
    except (KeyError, OSError):
        return ""
