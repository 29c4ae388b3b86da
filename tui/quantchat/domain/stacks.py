"""What another Python interpreter must hold for engine processes: read there too, so only the standard library here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import NamedTuple

OLDEST_PYTHON = (3, 11)
NEEDS = ("msgspec", "psutil", "platformdirs")
"""Packages that every engine process imports; their modules have the same names."""
LIBRARIES = (
    "torch",
    "transformers",
    "gptqmodel",
    "auto-gptq",
    "autoawq",
    "accelerate",
    "optimum",
    "peft",
    "intel-extension-for-pytorch",
)
"""What models are loaded with there, and what that leans on."""
UNFIT_STATUS = 78
"""How an engine process ends that its interpreter cannot run; what it lacks is the last line of its log."""
CURRENT_TRANSFORMERS = 5


class RetiredLibrary(NamedTuple):
    """A library that loads the folders of one method.

    Attributes:
        package: Its name for pip.
        module: Its name for `import`.
    """

    package: str
    module: str


RETIRED = {
    "gptq": RetiredLibrary("auto-gptq", "auto_gptq"),
    "awq": RetiredLibrary("autoawq", "awq"),
    "none": RetiredLibrary("transformers", "transformers"),
}
"""By the method of a folder."""


def pip_line(python: str, packages: Iterable[str]) -> str:
    """Return the command that installs packages for an interpreter."""
    return f"{shlex.quote(python)} -m pip install {' '.join(shlex.quote(package) for package in packages)}"


def is_current(versions: dict[str, str]) -> bool:
    """Whether these packages load models as quantchat's own interpreter does."""
    major = versions.get("transformers", "0").partition(".")[0]
    return "gptqmodel" in versions and major.isdigit() and int(major) >= CURRENT_TRANSFORMERS
