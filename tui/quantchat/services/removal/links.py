"""Links into what goes: models that a removal would leave without their content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from quantchat.services.removal.removals import Removal

LONGEST_CHAIN = 40
"""Links that lead to links: as many as the system follows."""


class Going:
    """What a removal deletes, by places that have no links above them."""

    def __init__(self, plan: Removal) -> None:
        self._files = frozenset(map(_place, plan.files))
        self._folders = tuple(map(_place, plan.folders))

    def is_behind(self, model: Path) -> bool:
        """Whether a model is a link to something that goes, or has a file that is one."""
        try:
            return any(self._holds(place) for link in (model, *_links_in(model)) for place in _steps(link))
        except OSError:
            # What cannot be looked at is not made worse.
            return False

    def _holds(self, place: Path) -> bool:
        return place in self._files or any(place.is_relative_to(folder) for folder in self._folders)


def _links_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_symlink()]


def _steps(path: Path) -> Iterator[Path]:
    """Yield the places that a chain of links comes past."""
    for _ in range(LONGEST_CHAIN):
        place = _place(path)
        yield place
        if not place.is_symlink():
            return
        path = place.parent / os.readlink(place)


def _place(path: str | Path) -> Path:
    folder, name = os.path.split(path)
    return Path(os.path.realpath(folder), name)
