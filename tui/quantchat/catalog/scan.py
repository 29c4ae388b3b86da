"""Find every model below the scan roots."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import msgspec

from quantchat.catalog.candidates import Candidate
from quantchat.catalog.duplicates import merged, without_shells
from quantchat.catalog.index import Entry, Index
from quantchat.catalog.problems import clean
from quantchat.catalog.roots import Root
from quantchat.catalog.walk import Walk
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport, ModelError

ALIKE = 0.6
TELL_SECONDS = 0.25
"""How often a scan under way tells what it has found."""

Read = Callable[[Sequence[Candidate], Callable[[], bool]], Iterator[Entry]]
"""Reads folders, in any order, until the function says that the scan is cancelled."""
Tell = Callable[[tuple[ModelInfo, ...]], None]


class ScanResult(msgspec.Struct, frozen=True):
    """Models sorted by name, each once, and what could not be looked at.

    Attributes:
        read: How many folders were read because the index did not know them.
    """

    models: tuple[ModelInfo, ...] = ()
    problems: tuple[ErrorReport, ...] = ()
    read: int = 0


def scan(
    roots: Sequence[Root],
    cancelled: Callable[[], bool] | None = None,
    *,
    index: Index | None = None,
    read: Read | None = None,
    tell: Tell | None = None,
    expect: Callable[[int], None] | None = None,
) -> ScanResult:
    """Find every model below the roots; never raises for what is on the disk.

    Args:
        roots: Scanned in this order; a folder reached twice belongs to the first.
        cancelled: Asked before each folder; once true, the scan ends with what it has.
        index: What earlier scans know; is brought up to date.
        read: How folders are read that the index does not know; one after the other in this process if None.
        tell: Told what was found so far, now and then.
        expect: Told of each further folder, while others are looked for, how many there are to read.
    """
    cancelled, index = cancelled or (lambda: False), index or Index()
    walk = Walk(index, cancelled, expect)
    if tell is not None:
        walk.progress = _Teller(walk, tell)
    reached = [root for root in roots if walk.root(root)]
    count = _read(walk, read or _read_here, cancelled)
    if not cancelled():
        index.finish(tuple(os.fsencode(root.path) for root in reached))
    return ScanResult(_sorted(walk), tuple(walk.problems), count)


class _Teller:
    """Tells what a walk has found so far, now and then."""

    def __init__(self, walk: Walk, tell: Tell) -> None:
        self._walk = walk
        self._tell = tell
        self._told = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._told > TELL_SECONDS:
            self._tell(_sorted(self._walk))
            self._told = time.monotonic()


def _read(walk: Walk, read: Read, cancelled: Callable[[], bool]) -> int:
    """Read what the index did not know, and what turns up below folders that were no models."""
    count = 0
    while walk.unread and not cancelled():
        candidates, walk.unread = walk.unread, []
        for entry in read(candidates, cancelled):
            walk.progress()
            walk.take(entry)
            count += 1
    return count


def _read_here(candidates: Sequence[Candidate], cancelled: Callable[[], bool]) -> Iterator[Entry]:
    from quantchat.catalog.reading import read_entry

    for candidate in candidates:
        if cancelled():
            return
        yield read_entry(candidate)


def _sorted(walk: Walk) -> tuple[ModelInfo, ...]:
    models = without_shells(merged(walk.known, walk.aliases))
    return tuple(sorted(models, key=lambda model: (model.name.casefold(), model.path)))


def find_model(name_or_path: str, models: Sequence[ModelInfo]) -> ModelInfo:
    """Find the model that a person means: path, exact name, or a part of one name, in any case.

    A path of a folder that was not scanned is read on the spot.

    Raises:
        ModelError: None or several fit; the error lists the candidates.
    """
    known = next((model for model in models if name_or_path in (model.path, _on_server(model))), None)
    if known is not None:
        return known
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


def _on_server(model: ModelInfo) -> str:
    return f"{model.server}/{model.name}" if model.server else model.path


def _by_path(text: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    from quantchat.catalog.reader import read_model

    path = Path(os.path.expanduser(text))
    try:
        if not _may_be_model(path, bare=os.sep not in text):
            return None
    except (OSError, ValueError):
        return None
    resolved = os.path.realpath(path)
    scanned = (model for model in models if os.path.realpath(model.path) == resolved)
    return next(scanned, None) or read_model(path)


def _may_be_model(path: Path, *, bare: bool) -> bool:
    """Whether a path leads to a model; a bare word only if one lies there: the working folder may hold any `qwen`."""
    from quantchat.catalog.gguf_model import SUFFIX
    from quantchat.catalog.reader import MARKERS

    if path.is_file():
        return path.name.endswith(SUFFIX)
    return path.is_dir() and (not bare or any((path / marker).exists() for marker in MARKERS))


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
