"""Links into what goes: models that a removal would leave without their content."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from quantchat.services.removal.removals import Removal

LONGEST_CHAIN = 40
"""Links that lead to links: as many as the system follows."""


class Going:
    """What a removal deletes, by places that have no links above them."""

    def __init__(self, plan: Removal) -> None:
        # Once for each folder: a hub cache has a dozen links in each.
        self._real = functools.cache(os.path.realpath)
        self._files = frozenset(map(self._place, plan.files))
        self._folders = tuple(f"{self._place(folder)}/" for folder in plan.folders)

    def is_behind(self, model: str) -> bool:
        """Whether a model is a link to something that goes, or has a file that is one."""
        try:
            return any(self._holds(place) for link in (model, *_links_in(model)) for place in self._steps(link))
        except OSError:
            # What cannot be looked at is not made worse.
            return False

    def _steps(self, path: str) -> Iterator[str]:
        """Yield the places that a chain of links comes past."""
        for _ in range(LONGEST_CHAIN):
            place = self._place(path)
            yield place
            if not os.path.islink(place):
                return
            path = os.path.join(os.path.dirname(place), os.readlink(place))

    def _place(self, path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(self._real(folder), name)

    def _holds(self, place: str) -> bool:
        return place in self._files or f"{place}/".startswith(self._folders)


def _links_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_symlink()]
