"""Read one folder that may hold models into an entry of the index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from quantchat.catalog.index import Entry, Stamp, measure
from quantchat.catalog.problems import problem
from quantchat.catalog.reader import read_model
from quantchat.catalog.walk import Candidate
from quantchat.domain.models import ModelInfo

WEIGHTS = (b".safetensors", b".gguf", b".bin", b".pt", b".pth")
_MATTERING = (*WEIGHTS, b".json", b".jinja", b".model", b".txt", b".tiktoken", b".py", b".incomplete", b".aria2")
_HUB_BLOBS = b"../../blobs"
"""A download into the hub cache goes on there before the snapshot changes."""


def read_entry(candidate: Candidate) -> Entry:
    """Read what lies in a folder; never raises for what is on the disk.

    The stamps are taken first: a file that changes while it is read has another one at the next look.
    """
    folder = candidate.place.path
    status, stamps, inodes = _stamp(folder, in_hub=bool(candidate.place.revision))
    models = read_models(candidate)
    return Entry(
        path=folder,
        inode=status[0],
        modified=status[1],
        stamps=stamps,
        models=models,
        weights=tuple(_weights_digest(model, stamps, inodes) for model in models),
    )


def read_models(candidate: Candidate) -> tuple[ModelInfo, ...]:
    """Return the models of a folder; none if its files only look like a model's."""
    place = candidate.place
    path, root = Path(os.fsdecode(place.path)), os.fsdecode(candidate.root)
    name, revision = os.fsdecode(place.name) or None, os.fsdecode(place.revision) or None
    try:
        model = read_model(path, root=root, name=name, revision=revision)
        # What goes through the pipe and into the index must come out again.
        msgspec.msgpack.encode(model)
    except Exception as error:  # noqa: BLE001 - whatever somebody put into a folder, the other models are shown
        model = unreadable(candidate, f"{type(error).__name__}: {error}")
    if any(found.code == "not-a-model" for found in model.problems):
        return ()
    return (model,)


def unreadable(candidate: Candidate, why: str) -> ModelInfo:
    """Describe a folder that could not be read to its end."""
    place = candidate.place
    shown = place.path.decode("utf-8", "backslashreplace")
    name = (place.name or os.path.basename(place.path)).decode("utf-8", "backslashreplace")
    return ModelInfo(
        path=shown,
        name=name,
        root=candidate.root.decode("utf-8", "backslashreplace"),
        problems=(problem("folder-unreadable", why=why),),
    )


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
    files = sorted((inodes[name], size, time) for name, size, time in stamps if inodes.get(name) and size > 0)
    return hashlib.blake2b(repr(files).encode(), digest_size=16).digest() if files else b""
