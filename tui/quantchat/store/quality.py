"""What was measured of models: a file beside the model, or in the data folder where none may lie there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.domain.quality import Quality
from quantchat.errors import StorageError
from quantchat.store.atomic import translate_os_error, write_atomic

FILE = "quantchat-quality.json"
VERSION = 1
KEPT = 100
LARGEST = 4 * 1024**2
"""Bytes; a larger file is none of ours."""
HUB_PREFIX = "models--"
"""Nothing is written into snapshots of a hub cache: what is in them is the repository's."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The file; measurements with the newest first.

    Attributes:
        path: The model's folder, as the file may lie elsewhere.
    """

    version: int = VERSION
    path: str = ""
    measurements: tuple[Quality, ...] = ()


def beside(model: str) -> Path:
    """Return the file in a model's folder."""
    return Path(model) / FILE


def apart(model: str) -> Path:
    """Return the file in the data folder for a model beside which nothing can be written."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(model))).hexdigest()[:32]
    return paths.quality_dir() / f"{digest}.json"


def load_quality(model: str) -> tuple[Quality, ...]:
    """Return what was measured of a model, the newest first; what cannot be read is passed over."""
    found = [quality for path in (beside(model), apart(model)) for quality in _read(path).measurements]
    return tuple(sorted(found, key=lambda quality: quality.measured, reverse=True))


def add_quality(model: str, quality: Quality) -> Path:
    """Keep a measurement, in place of an earlier one in the same circumstances; return the file.

    Raises:
        StorageError: if it can be written nowhere.
    """
    if may_write_beside(model):
        try:
            return _add(beside(model), model, quality)
        except StorageError as error:
            if error.report.code == "disk-full":
                raise
    return _add(apart(model), model, quality)


def may_write_beside(model: str) -> bool:
    """Whether a file of ours may lie in a model's folder."""
    folder = Path(model)
    if any(part.startswith(HUB_PREFIX) for part in folder.parts):
        return False
    # A folder may come from anywhere, and a link in it lead to any file of the user's.
    return folder.is_dir() and os.access(folder, os.W_OK) and not beside(model).is_symlink()


def _add(path: Path, model: str, quality: Quality) -> Path:
    known = _read(path)
    if not known.version:
        _put_aside(path)
    kept = [other for other in known.measurements if not quality.replaces(other)]
    stored = Stored(path=model, measurements=(quality, *kept)[:KEPT])
    write_atomic(path, msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")
    _open_as_folder(path)
    return path


def _read(path: Path) -> Stored:
    """Read a file; version 0 stands for one that is there and cannot be read, which is not to be lost."""
    unreadable = Stored(version=0)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return unreadable
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Stored()
    except OSError:
        return unreadable
    try:
        found = msgspec.json.decode(data, type=Stored)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return unreadable
    return found if found.version == VERSION and len(data) <= LARGEST else unreadable


def _put_aside(path: Path) -> None:
    """Rename what is in the way of a new file."""
    kept = path.with_name(f"{path.stem}.{os.urandom(4).hex()}.old{path.suffix}")
    try:
        path.rename(kept)
    except OSError as error:
        raise translate_os_error(error, path) from error


def _open_as_folder(path: Path) -> None:
    """Let those read the file who may read its folder."""
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        path.chmod(0o600 | mode & 0o044)
