"""Folders that the user wants models to be looked for in: checked before they are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quantchat.catalog.roots import usual_roots
from quantchat.domain.text import clean
from quantchat.errors import UsageError


class Folder(msgspec.Struct, frozen=True):
    """A place where models are looked for.

    Attributes:
        written: As the settings have it; for others the path.
        label: What it is, or what is wrong with it.
        own: The user added it and may take it out.
    """

    written: str
    path: str
    label: str = ""
    own: bool = False


def expanded(written: str) -> str:
    """Return the path that is meant."""
    return os.path.abspath(os.path.expandvars(os.path.expanduser(written)))


def known_folders(own: Sequence[str], given: Sequence[Path] = ()) -> list[Folder]:
    """Return all places that are looked at: the user's own, those of the command line, the usual ones that exist.

    What is written twice is there once.
    """
    mine = [Folder(written, expanded(written), fault_words(expanded(written)), own=True) for written in own]
    named = [Folder(str(path), expanded(str(path)), "--models-dir") for path in given]
    usual = [Folder(str(root.path), str(root.path), root.label) for root in usual_roots() if root.path.is_dir()]
    return list({(folder.own, folder.written): folder for folder in (*mine, *named, *usual)}.values())


def check_folder(written: str, known: Sequence[Folder]) -> str:
    """Return how a new folder is to be kept in the settings.

    Raises:
        UsageError: if it is not there, is no folder, may not be read, or is looked at already.
    """
    written = written.strip()
    path = expanded(written)
    if not written or fault_words(path):
        raise UsageError("No folder was added", f"{clean(path)}: {fault_words(path)}" if written else "Type its path")
    real = os.path.realpath(path)
    same = next((folder for folder in known if os.path.realpath(folder.path) == real), None)
    if same is not None:
        raise UsageError("No folder was added", f"{clean(same.written)} is in the list already")
    return written if written.startswith(("~", "$")) else path


def fault_words(path: str) -> str:
    """Say in a few words why a folder cannot be looked at; empty if it can."""
    if not os.path.exists(path):
        return "there is no such folder"
    if not os.path.isdir(path):
        return "this is a file"
    return "" if os.access(path, os.R_OK | os.X_OK) else "you may not read it"
