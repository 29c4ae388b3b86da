"""Walk the scan roots: what the index knows is taken from there, other model folders are left to be read."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from quantchat.catalog.candidates import Candidate, shown
from quantchat.catalog.formats import CONFIG_FILES
from quantchat.catalog.hub import is_hub_repository, read_repository
from quantchat.catalog.index import Entry, Index, Place, measure
from quantchat.catalog.problems import clean, os_reason
from quantchat.catalog.roots import PATIENCE, Root, answers
from quantchat.domain.models import ModelInfo
from quantchat.errors import ErrorReport

DEPTH = 4
"""Folders below a root; LM Studio nests publisher and model, the deepest habit known."""
_MARKERS = frozenset(os.fsencode(name) for name in (*CONFIG_FILES, "adapter_config.json"))
_GGUF = b".gguf"
_NOT_MODELS = (b".", b"datasets--", b"spaces--")
_IN_REPOSITORY = 3
"""A snapshot, and folders in it: repositories of GGUF files often have one for each quantization."""
_HOLLOW = ("gguf", "none")
"""What lies in a folder without weights of its own, beside which there may be more further down."""


class Known(msgspec.Struct, frozen=True):
    """A model folder that was read; `order` is its turn on the walk."""

    entry: Entry
    root: bytes
    order: int
    superseded: bool = False


class _Visit(msgspec.Struct, frozen=True):
    """A place on the walk, and how many folders further down it may go."""

    candidate: Candidate
    depth: int
    order: int


class Walk:
    """One walk. `known` is what was found, `unread` what must be read and handed to `take`.

    Attributes:
        progress: Called at each step.
    """

    def __init__(
        self, index: Index, cancelled: Callable[[], bool], expect: Callable[[int], None] | None = None
    ) -> None:
        self.known: list[Known] = []
        self.unread: list[Candidate] = []
        self.problems: list[ErrorReport] = []
        self.progress: Callable[[], None] = lambda: None
        self.aliases: Mapping[bytes, list[bytes]] = defaultdict(list)
        self._index = index
        self._cancelled = cancelled
        self._expect = expect or (lambda count: None)
        self._seen: dict[tuple[int, int], bytes] = {}
        self._pending: dict[bytes, _Visit] = {}

    def root(self, root: Root) -> bool:
        """Walk one root, and say whether its disk answers; that it is not there matters only if the user named it."""
        path = os.fsencode(root.path)
        if not answers(root.path):
            self.problems.append(_silent(path))
            return False
        # Not Path.exists, which raises where a folder above may not be entered.
        if os.path.exists(path) or root.asked_for:
            self._visit(Place(path), path, DEPTH)
        return True

    def take(self, entry: Entry) -> None:
        """Go on with what was read of a candidate."""
        visit = self._pending.pop(entry.path)
        try:
            if all(model.container in _HOLLOW for model in entry.models):
                entry = msgspec.structs.replace(entry, places=_folders(visit.candidate.place))
        except OSError as error:
            self._report(entry.path, error)
        self._index.put(entry)
        self._enter(entry, visit)

    def _visit(self, place: Place, root: bytes, depth: int) -> None:
        if self._cancelled():
            return
        self.progress()
        status = self._status(place.path, is_root=place.path == root)
        if status is None:
            return
        identity = status.st_dev, status.st_ino
        if identity in self._seen:
            self.aliases[self._seen[identity]].append(place.path)
            return
        self._seen[identity] = place.path
        visit = _Visit(Candidate(place, root), depth, order=len(self._seen))
        entry = self._index.get(place.path, status) or self._look(visit, status)
        if entry is not None:
            self._enter(entry, visit)

    def _status(self, path: bytes, *, is_root: bool) -> os.stat_result | None:
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                return status
            if is_root:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except ValueError:
            # A null byte.
            self._report(path, OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
        except OSError as error:
            # A link to nowhere is no place to look for models, and not worth a word; nor is what was just deleted.
            if is_root or not (os.path.islink(path) or error.errno == errno.ENOENT):
                self._report(path, error)
        return None

    def _look(self, visit: _Visit, status: os.stat_result) -> Entry | None:
        """Find out what a folder is; None if it must be read."""
        path = visit.candidate.place.path
        plain = Entry(path, status.st_ino, status.st_mtime_ns)
        if is_hub_repository(path):
            entry = _repository_entry(plain)
            self._index.put(entry)
            return entry
        try:
            names = os.listdir(path)
            if b"model_index.json" in names:
                return plain
            if not _MARKERS.isdisjoint(names) or any(name.endswith(_GGUF) for name in names):
                self._pending[path] = visit
                self.unread.append(visit.candidate)
                self._expect(len(self.unread))
                return None
            entry = msgspec.structs.replace(plain, places=_folders(visit.candidate.place))
        except OSError as error:
            self._report(path, error)
            return None
        self._index.put(entry)
        return entry

    def _enter(self, entry: Entry, visit: _Visit) -> None:
        root = visit.candidate.root
        if entry.models:
            self.known.append(Known(entry, root, visit.order, visit.candidate.place.superseded))
        below = _IN_REPOSITORY if is_hub_repository(entry.path) else visit.depth
        for place in entry.places if below > 0 else ():
            self._visit(place, root, below - 1)

    def _report(self, folder: bytes, error: OSError) -> None:
        self.problems.append(
            ErrorReport(
                code="folder-unreadable",
                title="A folder cannot be searched for models",
                detail=f"{clean(os.fsdecode(folder))}: {os_reason(error)}.",
                remedy="Check the path and its permissions, or take the folder out of the settings.",
            )
        )


def _silent(root: bytes) -> ErrorReport:
    return ErrorReport(
        code="folder-silent",
        title="A folder with models does not answer",
        detail=f"{clean(os.fsdecode(root))}: nothing came from its disk for {PATIENCE:.0f} seconds.",
        remedy="Mend the connection to it, or take the folder out of the settings; /rescan looks again.",
    )


def _repository_entry(plain: Entry) -> Entry:
    repository = read_repository(plain.path)
    return msgspec.structs.replace(
        plain,
        stamps=tuple((name, *measure(os.path.join(plain.path, name))) for name in repository.sources),
        places=tuple(
            Place(snapshot.path, snapshot.name, snapshot.commit, superseded=snapshot in repository.superseded)
            for snapshot in (*repository.shown, *repository.superseded)
        ),
    )


def _folders(place: Place) -> tuple[Place, ...]:
    """Return the folders in a folder; what is reached by links, and may be none, comes last."""
    with os.scandir(place.path) as found:
        folders = sorted(
            (item.is_symlink(), item.name)
            for item in found
            if not item.name.startswith(_NOT_MODELS) and (item.is_symlink() or item.is_dir(follow_symlinks=False))
        )
    inside = place.name + b"/" if place.name else b""
    return tuple(
        msgspec.structs.replace(place, path=os.path.join(place.path, name), name=inside and inside + name)
        for _, name in folders
    )


def with_root(model: ModelInfo, root: bytes) -> ModelInfo:
    """The same folder may be found under another root than when it was read."""
    here = shown(root)
    return model if model.root == here else msgspec.structs.replace(model, root=here)
