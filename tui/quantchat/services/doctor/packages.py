"""The Python packages: what is installed, and what they ask of each other. Nothing of them is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import pip_install, pip_uninstall

CORE = (
    "quantchat",
    "torch",
    "gptqmodel",
    "optimum",
    "transformers",
    "accelerate",
    "huggingface-hub",
    "tokenizers",
    "safetensors",
)
"""What a load goes through; what these ask of each other is shown, what they ask of others only where it fails."""
RETIRED = {
    "auto-gptq": "gptqmodel took its place; transformers 5 no longer calls it",
    "autoawq": "gptqmodel took its place; transformers 5 no longer calls it",
    "pynvml": "it is only a wrapper around nvidia-ml-py, and an old one hides that",
}


class CodeLimit(NamedTuple):
    """A limit that a package has in its code instead of its metadata: a constant of a file names the lowest version."""

    package: str
    file: str
    constant: str
    other: str


CODE_LIMITS = (
    CodeLimit("optimum", "optimum/utils/import_utils.py", "GPTQMODEL_MINIMUM_VERSION", "gptqmodel"),
    CodeLimit("optimum", "optimum/utils/import_utils.py", "TORCH_MINIMUM_VERSION", "torch"),
    CodeLimit("optimum", "optimum/utils/import_utils.py", "TRANSFORMERS_MINIMUM_VERSION", "transformers"),
    CodeLimit("transformers", "transformers/utils/import_utils.py", "ACCELERATE_MIN_VERSION", "accelerate"),
    CodeLimit("transformers", "transformers/utils/import_utils.py", "GGUF_MIN_VERSION", "gguf"),
)


class Limit(NamedTuple):
    """What a package asks of another one, and which version of that is there."""

    requirement: Requirement
    version: str | None

    @property
    def met(self) -> bool:
        """Whether the other package is there in a version that is asked for."""
        if self.version is None:
            return False
        try:
            return self.requirement.specifier.contains(self.version, prereleases=True)
        except InvalidVersion:
            return False

    def words(self) -> str:
        """Write it as `torch >=2.14.1 (2.15.0 is here)`."""
        asked = f"{self.requirement.name} {self.requirement.specifier}".strip()
        return f"{asked} ({self.version} is here)" if self.version else f"{asked} (not installed)"


def look_at_python(machine: Machine) -> Iterator[Finding]:
    """Check the interpreter against what quantchat asks for."""
    version = ".".join(map(str, sys.version_info[:3]))
    asked = _python_wanted() or ">=3.11"
    fine = SpecifierSet(asked).contains(version)
    free = not getattr(sys, "_is_gil_enabled", lambda: True)()
    found = f"{version} ({sys.executable})"
    if not fine:
        yield Finding(id="python", title="Python", level="red", found=f"{found}; quantchat needs {asked}.")
    elif free:
        words = f"{found} runs without its lock, which few of the libraries are tested with."
        yield Finding(id="python", title="Python", level="yellow", found=words, fix="export PYTHON_GIL=1")
    else:
        yield Finding(id="python", title="Python", found=found)


def look_at_packages(machine: Machine) -> Iterator[Finding]:
    """Compare the installed versions with what the packages ask of each other."""
    for name in CORE:
        yield _package(name)
    for name, why in RETIRED.items():
        if (version := installed(name)) is not None:
            words = f"{version} is installed: {why}."
            yield Finding(id=f"package.{name}", title=name, level="yellow", found=words, fix=pip_uninstall(name))


def _package(name: str) -> Finding:
    version, identifier = installed(name), f"package.{name}"
    if version is None:
        fix = pip_install([_wanted(name)])
        return Finding(id=identifier, title=name, level="red", found="Not installed.", fix=fix)
    found = limits(name)
    unmet = [limit for limit in found if not limit.met]
    if unmet:
        core = any(canonicalize_name(limit.requirement.name) in CORE or not limit.version for limit in unmet)
        return Finding(
            id=identifier,
            title=name,
            level="red" if core else "yellow",
            found=f"{version} needs {', '.join(limit.words() for limit in unmet)}.",
            fix=pip_install(_plain(limit.requirement) for limit in unmet),
        )
    known = _merged(limit.requirement for limit in found if canonicalize_name(limit.requirement.name) in CORE)
    return Finding(id=identifier, title=name, found=f"{version}; takes {known}" if known else version)


def _merged(requirements: Iterable[Requirement]) -> str:
    """Write what is asked of each package once: metadata and code may both name it."""
    asked: dict[str, SpecifierSet] = {}
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        asked[name] = asked.get(name, SpecifierSet()) & requirement.specifier
    return ", ".join(f"{name} {specifier}".strip() for name, specifier in asked.items())


def installed(name: str) -> str | None:
    """Return the version of a package; None if it is not there, or only the ruins of it."""
    try:
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, KeyError, OSError, UnicodeDecodeError):
        return None


def limits(name: str) -> list[Limit]:
    """Return what a package asks of others on this machine, by its metadata and by its code."""
    requirements = [*_declared(name), *_in_code(name)]
    return [Limit(requirement, installed(requirement.name)) for requirement in requirements]


def _declared(name: str) -> Iterator[Requirement]:
    for line in metadata.distribution(name).requires or ():
        try:
            requirement = Requirement(line)
            # Without an extra: what belongs to one is not needed.
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except (InvalidRequirement, InvalidSpecifier):
            continue
        if applies:
            yield requirement


def _in_code(name: str) -> Iterator[Requirement]:
    for limit in CODE_LIMITS:
        if limit.package != name or installed(limit.other) is None:
            continue
        if lowest := _constant(limit):
            yield Requirement(f"{limit.other}>={lowest}")


def _constant(limit: CodeLimit) -> str | None:
    try:
        with open(str(metadata.distribution(limit.package).locate_file(limit.file)), encoding="utf-8") as file:
            found = re.search(rf'^{limit.constant}\b[^"\n]*"([\w.]+)"', file.read(), re.MULTILINE)
            return str(Version(found[1])) if found else None
    except (OSError, ValueError):
        return None


def _wanted(name: str) -> str:
    """A package as quantchat asks for it, else by its name."""
    try:
        asked = [requirement for requirement in _declared("quantchat") if canonicalize_name(requirement.name) == name]
    except metadata.PackageNotFoundError:
        asked = []
    return _plain(asked[0]) if asked else name


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _python_wanted() -> str | None:
    try:
        return metadata.metadata("quantchat")["Requires-Python"]
    except (metadata.PackageNotFoundError, KeyError):
        return None
