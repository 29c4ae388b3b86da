"""Folders that are to be read, on their way to what reads them; light, for the process that only walks."""

from __future__ import annotations

import os

import msgspec

from quantchat.catalog.index import Place
from quantchat.catalog.problems import problem
from quantchat.domain.models import ModelInfo


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A folder to be read, and the scan root under which it was found."""

    place: Place
    root: bytes


def unreadable(candidate: Candidate, why: str) -> ModelInfo:
    """Describe a folder that could not be read to its end."""
    place = candidate.place
    return ModelInfo(
        path=shown(place.path),
        name=shown(place.name or os.path.basename(place.path)),
        root=shown(candidate.root),
        problems=(problem("folder-unreadable", why=why),),
    )


def shown(path: bytes) -> str:
    """Return a path as text; bytes that are none are written as escapes."""
    return path.decode("utf-8", "backslashreplace")
