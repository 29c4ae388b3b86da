"""Read one folder that may hold models into an entry of the index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from quantchat.catalog.candidates import Candidate, unreadable
from quantchat.catalog.gguf_model import gguf_sets
from quantchat.catalog.index import Entry, Stamp, measure
from quantchat.catalog.reader import MARKERS, read_model
from quantchat.domain.models import ModelInfo

WEIGHTS = (b".safetensors", b".gguf", b".bin", b".pt", b".pth")
_MATTERING = (*WEIGHTS, b".json", b".jinja", b".model", b".txt", b".tiktoken", b".py", b".incomplete", b".aria2")
_MARKERS = frozenset(MARKERS)
_GGUF = ".gguf"
_HUB_BLOBS = b"../../blobs"
"""A download into the hub cache goes on there before the snapshot changes."""


def read_entry(candidate: Candidate) -> Entry:
    """Read what lies in a folder; never raises for what is on the disk.

    The stamps are taken first: a file that changes while it is read has another one at the next look.
    """
    folder = candidate.place.path
    status, stamps, inodes = _stamp(folder, in_hub=bool(candidate.place.revision))
    models = read_models(candidate, [os.fsdecode(name) for name, _, _ in stamps])
    return Entry(
        path=folder,
        inode=status[0],
        modified=status[1],
        stamps=stamps,
        models=models,
        weights=tuple(_weights_digest(model, stamps, inodes) for model in models),
    )


def read_models(candidate: Candidate, names: Sequence[str]) -> tuple[ModelInfo, ...]:
    """Return the models of a folder with these files: the folder itself, and each of its GGUF files.

    There are none if its files only look like a model's.
    """
    folder, sets = os.fsdecode(candidate.place.path), gguf_sets(names)
    paths = [folder] if not _MARKERS.isdisjoint(names) else []
    found = [_read(candidate, path) for path in (*paths, *(os.path.join(folder, first) for first in sets))]
    # A folder that is a model by its GGUF files alone is shown by them.
    alone = {"not-a-model", "gguf-only"} if sets else {"not-a-model"}
    return tuple(model for model in found if alone.isdisjoint(problem.code for problem in model.problems))


def _read(candidate: Candidate, path: str) -> ModelInfo:
    place, root = candidate.place, os.fsdecode(candidate.root)
    name, revision = os.fsdecode(place.name), os.fsdecode(place.revision) or None
    if name and path.endswith(_GGUF):
        name = f"{name}/{os.path.basename(path)}"
    try:
        model = read_model(Path(path), root=root, name=name or None, revision=revision)
        # What goes through the pipe and into the index must come out again.
        msgspec.msgpack.encode(model)
    except Exception as error:  # noqa: BLE001 - whatever somebody put into a folder, the other models are shown
        return unreadable(candidate, f"{type(error).__name__}: {error}")
    return model


def _stamp(folder: bytes, *, in_hub: bool) -> tuple[tuple[int, int], tuple[Stamp, ...], Mapping[bytes, int]]:
    """Return inode and time of the folder, the stamps of what matters in it, and the inodes of the weights."""
    stamps: list[Stamp] = [(_HUB_BLOBS, *measure(os.path.join(folder, _HUB_BLOBS)))] if in_hub else []
    inodes: dict[bytes, int] = {}
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            for item in found:
                if item.name.endswith(_MATTERING):
                    stamps.append((item.name, *measure(item.path)))
                    if item.name.endswith(WEIGHTS):
                        inodes[item.name] = _inode(item)
                elif item.is_dir(follow_symlinks=False):
                    stamps.append((item.name, *measure(item.path)))
    except OSError:
        return (0, 0), (), {}
    return (status.st_ino, status.st_mtime_ns), tuple(sorted(stamps)), inodes


def _inode(item: os.DirEntry[bytes]) -> int:
    try:
        return item.stat().st_ino
    except OSError:
        return 0


def _weights_digest(model: ModelInfo, stamps: Iterable[Stamp], inodes: Mapping[bytes, int]) -> bytes:
    """Digest which files on disk the weights are: inode, size and time; devices are numbered anew at each start."""
    single = os.path.basename(os.fsencode(model.path)) if model.path.endswith(_GGUF) else None
    files = sorted(
        (inodes[name], size, time)
        for name, size, time in stamps
        if inodes.get(name) and size > 0 and (name == single if single else not name.endswith(b".gguf"))
    )
    return hashlib.blake2b(repr(files).encode(), digest_size=16).digest() if files else b""
