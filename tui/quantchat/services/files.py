"""The names in a folder, for completing a path that is being typed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from quantchat.domain.text import clean, plain

MOST_NAMES = 2000
SECONDS = 2.0


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        prefix: Only names that begin so, in any case, were looked for.
        names: Folders first, ending with a slash, then files; each in the order of the alphabet.
        cut: Whether there are more names than these.
    """

    folder: str
    prefix: str
    names: tuple[str, ...]
    cut: bool = False

    def serves(self, folder: str, prefix: str) -> bool:
        """Whether the names that match a longer prefix can be taken from here."""
        covered = prefix == self.prefix if self.cut else prefix.casefold().startswith(self.prefix.casefold())
        return folder == self.folder and covered and prefix.startswith(".") == self.prefix.startswith(".")


def list_folder(folder: str, prefix: str) -> Listing:
    """Read a folder within bounds of count and time; one that cannot be read is empty.

    Hidden names are there only if the prefix begins with a dot.
    """
    wanted, end = prefix.casefold(), time.monotonic() + SECONDS
    folders: list[str] = []
    files: list[str] = []
    cut = False
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                if not _fits(entry.name, wanted):
                    continue
                if len(folders) + len(files) >= MOST_NAMES or time.monotonic() > end:
                    cut = True
                    break
                (folders if _is_folder(entry) else files).append(entry.name)
    except OSError:
        return Listing(folder, prefix, ())
    names = [f"{name}/" for name in sorted(folders, key=str.casefold)]
    return Listing(folder, prefix, (*names, *sorted(files, key=str.casefold)), cut)


def _fits(name: str, wanted: str) -> bool:
    if name.startswith(".") != wanted.startswith("."):
        return False
    # Names that could not be typed as they are would not be found again.
    return name.casefold().startswith(wanted) and name == plain(name) == clean(name) and not set(name) & {'"', "\n"}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def matching(listing: Listing, prefix: str, most: int) -> list[str]:
    """Return the first names of a listing that begin with a prefix, in any case."""
    wanted = prefix.casefold()
    found: list[str] = []
    for name in listing.names:
        if name.casefold().startswith(wanted):
            found.append(name)
            if len(found) == most:
                break
    return found
