"""Find every model below the scan roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import msgspec

from quantchat.catalog.hub import is_hub_repository, repository_name, shown_snapshot
from quantchat.catalog.problems import clean, os_reason
from quantchat.catalog.reader import MARKERS, read_model
from quantchat.catalog.roots import Root
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport, ModelError

DEPTH = 4
"""Folders below a root; LM Studio nests publisher and model, the deepest habit known."""
ALIKE = 0.6
_MARKERS = frozenset(MARKERS)


class ScanResult(msgspec.Struct, frozen=True):
    """Models sorted by name, and what could not be looked at."""

    models: tuple[ModelInfo, ...] = ()
    problems: tuple[ErrorReport, ...] = ()


def scan(roots: Sequence[Root], cancelled: Callable[[], bool] | None = None) -> ScanResult:
    """Read every model folder below the roots; never raises for what is on the disk.

    Args:
        roots: Scanned in this order; a folder reached twice belongs to the first.
        cancelled: Asked before each folder; once true, the scan ends with what it has.
    """
    walk = _Walk(cancelled or (lambda: False))
    for root in roots:
        walk.root(root)
    models = sorted(walk.models, key=lambda model: (model.name.casefold(), model.path))
    return ScanResult(tuple(models), tuple(walk.problems))


class _Walk:
    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.models: list[ModelInfo] = []
        self.problems: list[ErrorReport] = []
        self._cancelled = cancelled
        self._seen: set[tuple[int, int]] = set()

    def root(self, root: Root) -> None:
        # Not Path.exists, which raises where a folder above may not be entered.
        if os.path.exists(root.path) or root.asked_for:
            self._visit(root.path, str(root.path), DEPTH)

    def _visit(self, folder: Path, root: str, depth: int) -> None:
        if self._cancelled() or not self._first_visit(folder):
            return
        if is_hub_repository(folder):
            self._visit_hub_repository(folder, root)
            return
        names, subfolders = self._list(folder)
        if "model_index.json" in names:
            return
        if names & _MARKERS and self._add(read_model(folder, root=root)):
            return
        if depth > 0:
            for name in sorted(subfolders):
                self._visit(folder / name, root, depth - 1)

    def _visit_hub_repository(self, repository: Path, root: str) -> None:
        snapshot = shown_snapshot(repository)
        if snapshot is None or not self._first_visit(snapshot):
            return
        names, _ = self._list(snapshot)
        if names & _MARKERS:
            self._add(read_model(snapshot, root=root, name=repository_name(repository), revision=snapshot.name))

    def _add(self, model: ModelInfo) -> bool:
        if any(problem.code == "not-a-model" for problem in model.problems):
            return False
        self.models.append(model)
        return True

    def _first_visit(self, folder: Path) -> bool:
        try:
            status = folder.stat()
        except OSError as error:
            self._report(folder, error)
            return False
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _list(self, folder: Path) -> tuple[set[str], list[str]]:
        names: set[str] = set()
        subfolders: list[str] = []
        try:
            with os.scandir(folder) as found:
                for item in found:
                    names.add(item.name)
                    if not item.name.startswith((".", "datasets--", "spaces--")) and _is_folder(item):
                        subfolders.append(item.name)
        except OSError as error:
            self._report(folder, error)
        return names, subfolders

    def _report(self, folder: Path, error: OSError) -> None:
        self.problems.append(
            ErrorReport(
                code="folder-unreadable",
                title="A folder cannot be searched for models",
                detail=f"{clean(folder)}: {os_reason(error)}.",
                remedy="Check the path and its permissions, or take the folder out of the settings.",
            )
        )


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False


def find_model(name_or_path: str, models: Sequence[ModelInfo]) -> ModelInfo:
    """Find the model that a person means: exact name, path, or a part of one name, in any case.

    A path of a folder that was not scanned is read on the spot.

    Raises:
        ModelError: None or several fit; the error lists the candidates.
    """
    named = [model for model in models if model.name == name_or_path]
    if len(named) == 1:
        return named[0]
    if not named and (model := _by_path(name_or_path, models)):
        return model
    wanted = name_or_path.casefold()
    candidates = named or [model for model in models if wanted and wanted in model.name.casefold()]
    if len(candidates) == 1:
        return candidates[0]
    raise _no_single(name_or_path, candidates, models)


def _by_path(text: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    path = Path(os.path.expanduser(text))
    try:
        # A bare word is a path only if a model lies there: the working folder may hold a `qwen` of any kind.
        if not path.is_dir() or not (os.sep in text or any((path / marker).exists() for marker in MARKERS)):
            return None
    except (OSError, ValueError):
        return None
    resolved = os.path.realpath(path)
    scanned = (model for model in models if os.path.realpath(model.path) == resolved)
    return next(scanned, None) or read_model(path)


def _no_single(name: str, candidates: Sequence[ModelInfo], models: Sequence[ModelInfo]) -> ModelError:
    shown = clean(name)
    if not candidates:
        known = ", ".join(_nearest_first(name, models)[:10])
        if not known:
            remedy = "Give a path, or scan a folder with --models-dir. `quantchat demo` makes a small model."
            return ModelError(f"No model is called {shown}", "None were found on this machine.", remedy)
        return ModelError(f"No model is called {shown}", f"Models here: {known}.", "Give a name or a path of these.")
    same = len({model.name for model in candidates}) < len(candidates)
    listed = ", ".join(model.path if same else model.name for model in candidates[:10])
    return ModelError(f"Several models fit {shown}", f"They are: {listed}.", "Give more of the name, or the path.")


def _nearest_first(name: str, models: Sequence[ModelInfo]) -> list[str]:
    """The models' names, those in front that a slip of the finger could have turned into `name`."""
    wanted = name.casefold()

    def far(known: str) -> bool:
        parts = (known.casefold(), *known.casefold().split("/"))
        return all(SequenceMatcher(None, wanted, part).ratio() < ALIKE for part in parts)

    return sorted(dict.fromkeys(model.name for model in models), key=far)
