"""Sessions into files: whole ones or none, never over another file unless that is wanted."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from quantchat.domain.chat import Session
from quantchat.domain.text import clean
from quantchat.errors import StorageError
from quantchat.store.atomic import sync_folder, temporary_name, translate_os_error
from quantchat.store.exchange.formats import Format

LONGEST_NAME = 80


def write_file(path: Path, kind: Format, sessions: Iterable[Session], *, several: bool, replace: bool = False) -> None:
    """Write sessions into one file, readable for its owner alone.

    Raises:
        StorageError: if the disk refuses, or `export-exists` if there is a file and it is not to be replaced.
    """
    with replacing(path, replace=replace) as file:
        for piece in kind.document(sessions, several=several):
            file.write(piece.encode("utf-8", "replace"))


@contextlib.contextmanager
def replacing(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Open a file that takes its place only when all of it is on the disk.

    Raises:
        StorageError: as `write_file`.
    """
    target = Path(os.path.realpath(path))
    _require_free(target, replace)
    temporary = target.parent / temporary_name(target.name)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _require_free(target, replace)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageError("Nothing was exported", f"there is no folder {target.parent}", "Make it first") from error
    except OSError as error:
        raise translate_os_error(error, target) from error


def _require_free(target: Path, replace: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise translate_os_error(error, target) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        raise StorageError("Nothing was exported", f"{target} is {what}", "Name another file", code="export-place")
    if not replace:
        remedy = "Name another, or use --force"
        raise StorageError("Nothing was exported", f"{target} is there already", remedy, code="export-exists")


def file_name(title: str, kind: Format) -> str:
    """Name a file after a session's title."""
    words = re.sub(r"[^\w.-]+", "-", clean(title, newlines=False)).strip("-._")
    # File systems count bytes, and leave room for 255.
    short = words.encode()[:LONGEST_NAME].decode("utf-8", "ignore").strip("-._")
    return f"{short or 'session'}{kind.suffix}"


def free_path(folder: Path, name: str) -> Path:
    """Return a path in a folder under which nothing is; a number tells files of one name apart."""
    path, number = folder / name, 2
    while os.path.lexists(path):
        path, number = folder / f"{Path(name).stem}-{number}{Path(name).suffix}", number + 1
    return path
