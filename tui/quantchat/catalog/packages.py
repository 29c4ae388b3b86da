"""Which packages are installed beside quantchat, by the names of their metadata folders.

`importlib.metadata` would say the same, but takes longer to import than a hundred models take to read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache

from quantchat.catalog.definitions import Package


def satisfied(package: Package) -> bool:
    """Whether a package is there in a version that will do."""
    found = installed(package.name)
    return found is not None and _numbers(found) >= _numbers(package.lowest)


def installed(name: str) -> str | None:
    """Return the version of a distribution, extras ignored; None if it is not there."""
    return versions().get(_normal(name.partition("[")[0]))


@cache
def versions() -> dict[str, str]:
    """Return all distributions; of several of one name the first on the path counts."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for name, version in _distributions(folder):
            found.setdefault(_normal(name), version)
    return found


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of what is installed in a folder (`name-version.dist-info`, of old tools `.egg-info`)."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return
    for entry in names:
        if entry.endswith((".dist-info", ".egg-info")):
            name, dash, version = entry.rpartition(".")[0].partition("-")
            if dash:
                yield name, version.partition("-py")[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
