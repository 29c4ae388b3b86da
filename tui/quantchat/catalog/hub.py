"""The layout of huggingface_hub's cache: `models--owner--name/{refs,snapshots/<commit>}`.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

_PREFIX = b"models--"
_COMMIT_LENGTH = 64
_REF_DEPTH = 3
"""Folders of `refs`: pull requests are `refs/pr/1`, and branches may hold a slash."""


class Snapshot(msgspec.Struct, frozen=True):
    """One commit that was downloaded; `name` is `owner/name`, with `@branch` unless it is the main branch's."""

    path: bytes
    name: bytes
    commit: bytes


class Repository(msgspec.Struct, frozen=True):
    """The downloaded commits of a model.

    Attributes:
        shown: The commit of the main branch, else the newest; then those that another branch or tag names.
        superseded: What the main branch was before.
        sources: Names below the repository's folder of all files and folders that say so.
    """

    shown: tuple[Snapshot, ...]
    superseded: tuple[Snapshot, ...]
    sources: tuple[bytes, ...]


def is_hub_repository(folder: bytes) -> bool:
    """Whether a folder is a model's folder in a hub cache."""
    return os.path.basename(folder).startswith(_PREFIX)


def repository_name(folder: bytes) -> bytes:
    """Return `owner/name`, or `name` for the few models without an owner."""
    return os.path.basename(folder).removeprefix(_PREFIX).replace(b"--", b"/", 1)


def read_repository(folder: bytes) -> Repository:
    """Read which commits are there and which branches name them; what cannot be read is not there."""
    sources = [b"snapshots", b"refs"]
    branches = {}
    for branch in _refs(folder, b"refs", sources, _REF_DEPTH):
        if commit := _commit(os.path.join(folder, b"refs", branch)):
            branches[branch] = commit
    present = _commits(os.path.join(folder, b"snapshots"))
    name = repository_name(folder)
    main = branches.pop(b"main", b"")
    if main not in present:
        main = max(present, key=lambda commit: (present[commit], commit), default=b"")
    named = {commit: branch for branch, commit in sorted(branches.items(), reverse=True) if commit in present}
    named.pop(main, None)

    def snapshot(commit: bytes, name: bytes) -> Snapshot:
        return Snapshot(os.path.join(folder, b"snapshots", commit), name, commit)

    shown = [snapshot(main, name)] if main else []
    shown += [
        snapshot(commit, name + b"@" + branch) for commit, branch in sorted(named.items(), key=lambda one: one[1])
    ]
    superseded = [snapshot(commit, name) for commit in sorted(present) if commit != main and commit not in named]
    return Repository(tuple(shown), tuple(superseded), tuple(sources))


def _refs(folder: bytes, inside: bytes, sources: list[bytes], depth: int) -> Iterator[bytes]:
    """Yield the names of branches, tags and pull requests; note the files and folders that were looked at."""
    try:
        with os.scandir(os.path.join(folder, inside)) as found:
            entries = sorted((item.name, item.is_dir()) for item in found)
    except OSError:
        return
    for name, is_folder in entries:
        place = inside + b"/" + name
        sources.append(place)
        if not is_folder:
            yield place.removeprefix(b"refs/")
        elif depth > 1:
            yield from _refs(folder, place, sources, depth - 1)


def _commits(snapshots: bytes) -> dict[bytes, float]:
    """Return the commits that are there with the times of their folders."""
    try:
        with os.scandir(snapshots) as found:
            return {item.name: item.stat().st_mtime for item in found if item.is_dir()}
    except OSError:
        return {}


def _commit(ref: bytes) -> bytes:
    try:
        # Not a pipe that somebody put there: opening it would wait.
        with open(ref, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            commit = file.read(_COMMIT_LENGTH).strip()
    except OSError:
        return b""
    return commit if commit.isalnum() else b""
