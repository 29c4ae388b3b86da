"""Folders of small text files that users write, copy and share: one thing each, called as its file is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from quantchat import paths
from quantchat.domain.text import clean, plain
from quantchat.errors import QuantchatError, UsageError
from quantchat.store.atomic import move_aside, private_dir, translate_os_error, write_atomic

MOST_BYTES = 256 * 1024
NAME_BYTES = 100


class NamedFiles:
    """The files of one folder. Links are followed; what is no regular file, or hidden, is passed over.

    Args:
        folder: It need not exist.
        what: What one of them is called, such as `prompt`.
        suffixes: Endings of their names; the first is that of new ones, and wins over the others.
    """

    def __init__(self, folder: Path, what: str, suffixes: tuple[str, ...]) -> None:
        self.folder, self.what, self.suffixes = folder, what, suffixes

    def names(self) -> list[str]:
        """Return the names, in the order of the alphabet; none if the folder cannot be read."""
        return sorted({name for name, _ in self._entries()}, key=lambda name: (name.casefold(), name))

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Return something that differs when a file came, went or changed."""
        return tuple(sorted(entry for _, entry in self._entries()))

    def _file(self, name: str) -> Path | None:
        """The file of a name; not looked for among all, which who reads all would do for each."""
        files = (self.folder / f"{name}{suffix}" for suffix in self.suffixes) if is_name(name) else ()
        return next((file for file in files if os.path.isfile(file)), None)

    def _entries(self) -> list[tuple[str, tuple[str, int, int]]]:
        entries = []
        with contextlib.suppress(OSError), os.scandir(self.folder) as listing:
            for entry in listing:
                name, suffix = os.path.splitext(entry.name)
                if suffix in self.suffixes and is_name(name):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        if stat.S_ISREG(status.st_mode):
                            entries.append((name, (entry.name, status.st_mtime_ns, status.st_size)))
        return entries

    def path(self, name: str) -> Path:
        """Return the file of a name, or where a new one would be."""
        return self._file(name) or self.folder / f"{name}{self.suffixes[0]}"

    def read(self, name: str) -> str:
        """Return a text without the line end behind it.

        Raises:
            UsageError: if there is none of that name, or it is no text.
            StorageError: if it cannot be read.
        """
        path = self._file(name)
        if path is None:
            raise UsageError(
                f"There is no {self.what} {name}", f"nothing in {self.folder} is called so", code="missing"
            )
        return read_small(path)

    def write(self, name: str, text: str, *, replace: bool = False) -> Path:
        """Keep a text under a name; one that is replaced goes to the trash. Return its file.

        Raises:
            UsageError: if nothing can be called so, or something is already.
            StorageError: if the disk refuses.
        """
        check_name(name, self.what)
        data = f"{plain(text)}\n".encode("utf-8", "replace")
        if len(data) > MOST_BYTES:
            raise _too_large(Path(name))
        path = self.path(name)
        if os.path.lexists(path):
            if not replace:
                raise UsageError(f"There is a {self.what} {name} already", str(path), code="exists")
            self._copied_aside(path)
        private_dir(self.folder)
        write_atomic(path, data)
        return path

    def remove(self, name: str) -> Path:
        """Move a file to the trash; return where it is now.

        Raises:
            UsageError: if there is none of that name.
            StorageError: if it cannot be moved.
        """
        path = self.path(name)
        try:
            return move_aside(path, paths.trash_dir())
        except FileNotFoundError as error:
            raise UsageError(f"There is no {self.what} {name}", str(path), code="missing") from error
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise translate_os_error(error, path) from error
        # The trash is on another disk.
        target = self._copied_aside(path)
        try:
            path.unlink()
        except OSError as error:
            raise translate_os_error(error, path) from error
        return target

    def _copied_aside(self, path: Path) -> Path:
        target = paths.trash_dir() / f"{path.stem}.{os.urandom(4).hex()}{path.suffix}"
        private_dir(target.parent)
        try:
            write_atomic(target, path.read_bytes())
        except OSError as error:
            raise translate_os_error(error, path, reading=True) from error
        return target


def prompt_files() -> NamedFiles:
    """The prompt templates of the user."""
    return NamedFiles(paths.prompts_dir(), "prompt", (".md", ".txt"))


def preset_files() -> NamedFiles:
    """The presets of the user that are files of their own."""
    return NamedFiles(paths.presets_dir(), "preset", (".toml",))


def is_name(name: str) -> bool:
    """Whether something may be called so; such a name is also safe as that of a file."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES
        and name == name.strip() == clean(name, newlines=False)
        and not name.startswith(".")
        and not set(name) & {"/", "\\", "\n"}
    )


def check_name(name: str, what: str) -> None:
    """Refuse a name that no file should have.

    Raises:
        UsageError: it says which can be.
    """
    if not is_name(name):
        raise UsageError(
            f"No {what} can be called {clean(name, newlines=False)[:60] or 'nothing'}",
            "it is the name of a file",
            f"Take up to {NAME_BYTES} letters without / or \\ and without a dot in front",
            code="name",
        )


def read_small(path: Path) -> str:
    """Read a small text file; line ends become newlines, the last one is left out.

    Raises:
        UsageError: if it is too large, no text, or no regular file.
        StorageError: if it cannot be read.
    """
    try:
        # Without waiting: nobody may ever write into a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path.name} is no regular file", str(path), code="not-a-file")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(error, path) from error
    if len(data) > MOST_BYTES:
        raise _too_large(path)
    return text_of(data, path.name)


def text_of(data: bytes, name: str) -> str:
    """Decode a text file.

    Raises:
        UsageError: if it is not UTF-8 text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is no UTF-8 text", f"byte {error.start} does not belong there", code="text"
        ) from error
    if "\0" in text:
        raise UsageError(f"{name} is no text", "it holds bytes of value 0", code="text")
    return plain(text).removesuffix("\n")


def _unreadable(error: OSError, path: Path) -> QuantchatError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"There is no file {path}", code="missing")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{path} is a folder", code="not-a-file")
    return translate_os_error(error, path, reading=True)


def _too_large(path: Path) -> UsageError:
    return UsageError(f"{path.name} is too large", f"at most {MOST_BYTES // 1024} KiB are kept", code="too-large")
