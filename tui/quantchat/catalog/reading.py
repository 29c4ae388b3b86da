"""Read one folder that may hold models into an entry of the index."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from quantchat.catalog.candidates import Candidate, unreadable
from quantchat.catalog.files import Folder
from quantchat.catalog.gguf_model import gguf_sets
from quantchat.catalog.index import Entry, Stamp, measure, stamp
from quantchat.catalog.problems import Defect
from quantchat.catalog.reader import MARKERS, read_model
from quantchat.domain.models import ModelInfo

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_MATTERING = (*WEIGHTS, ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".incomplete", ".aria2")
_GGUF = ".gguf"
_HUB_BLOBS = b"../../blobs"
"""A download into the hub cache goes on there before the snapshot changes."""


def read_entry(candidate: Candidate) -> Entry:
    """Read what lies in a folder; never raises for what is on the disk.

    The stamps are of before: a file that changes while it is read has another one at the next look.
    """
    path = candidate.place.path
    try:
        status = os.stat(path)
        folder = Folder(Path(os.fsdecode(path)))
    except (OSError, Defect):
        return Entry(path, 0, 0)
    models = read_models(candidate, folder)
    return Entry(
        path=path,
        inode=status.st_ino,
        modified=status.st_mtime_ns,
        stamps=_stamps(folder, in_hub=bool(candidate.place.revision)),
        models=models,
        weights=tuple(_weights_digest(model, folder) for model in models),
    )


def read_models(candidate: Candidate, folder: Folder) -> tuple[ModelInfo, ...]:
    """Return the models of a folder: the folder itself, and each of its GGUF files.

    There are none if its files only look like a model's.
    """
    sets = gguf_sets(name for name in folder.entries if name not in folder.subfolders)
    found = [_read(candidate, folder)] if not folder.entries.keys().isdisjoint(MARKERS) else []
    found += [_read(candidate, folder, first) for first in sets]
    # A folder that is a model by its GGUF files alone is shown by them.
    alone = {"not-a-model", "gguf-only"} if sets else {"not-a-model"}
    return tuple(model for model in found if alone.isdisjoint(problem.code for problem in model.problems))


def _read(candidate: Candidate, folder: Folder, file: str = "") -> ModelInfo:
    """Read a folder, or one of its GGUF files."""
    place, root = candidate.place, os.fsdecode(candidate.root)
    name, revision = os.fsdecode(place.name), os.fsdecode(place.revision) or None
    if name and file:
        name = f"{name}/{file}"
    try:
        path = folder.path / file
        model = read_model(path, root=root, name=name or None, revision=revision, listed=None if file else folder)
        # What goes through the pipe and into the index must come out again.
        msgspec.msgpack.encode(model)
    except Exception as error:  # noqa: BLE001 - whatever somebody put into a folder, the other models are shown
        return unreadable(candidate, f"{type(error).__name__}: {error}")
    return model


def _stamps(folder: Folder, *, in_hub: bool) -> tuple[Stamp, ...]:
    """Return the stamps of what matters in a folder."""
    stamps = [(os.fsencode(name), *stamp(folder.entries[name].status)) for name in folder.subfolders]
    for name, entry in folder.entries.items():
        if name.endswith(_MATTERING) and name not in folder.subfolders:
            stamps.append((os.fsencode(name), *stamp(entry.status)))
    if in_hub:
        stamps.append((_HUB_BLOBS, *measure(os.path.join(os.fsencode(folder.path), _HUB_BLOBS))))
    return tuple(sorted(stamps))


def _weights_digest(model: ModelInfo, folder: Folder) -> bytes:
    """Digest which files on disk the weights are: inode, size and time; devices are numbered anew at each start."""
    single = os.path.basename(model.path) if model.path.endswith(_GGUF) else None
    files = sorted(
        (status.st_ino, status.st_size, status.st_mtime_ns)
        for name, status in folder.files.items()
        if name.endswith(WEIGHTS) and status.st_size and (name == single if single else not name.endswith(_GGUF))
    )
    return hashlib.blake2b(repr(files).encode(), digest_size=16).digest() if files else b""
