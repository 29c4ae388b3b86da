"""Which packages are installed beside quantchat, asked of their metadata without importing them."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import metadata

from quantchat.catalog.definitions import Package
from quantchat.catalog.formats import FORMATS

ENGINE = ("transformers", "gptqmodel")
"""What loads the models."""


def satisfied(package: Package) -> bool:
    """Whether a package is there in a version that will do."""
    found = installed(package.name)
    return found is not None and _numbers(found) >= _numbers(package.lowest)


@cache
def installed(name: str) -> str | None:
    """Return the version of a distribution, extras ignored; None if it is not there."""
    try:
        return metadata.version(name.partition("[")[0])
    except metadata.PackageNotFoundError:
        return None


def fingerprint() -> str:
    """Return a text that changes when other packages would make other verdicts: caches of `ModelInfo` hold it."""
    names = {*ENGINE, *(entry.package.name for entry in FORMATS if entry.package)}
    versions = ",".join(f"{name}={installed(name)}" for name in sorted(names))
    return hashlib.blake2b(versions.encode(), digest_size=8).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
