"""What went wrong on a model's way to this folder: downloads and copies that did not end, links, foreign code."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from quantchat.catalog.files import LINK_FAULTS, Folder, JsonObject
from quantchat.catalog.problems import problem
from quantchat.catalog.shape import text_config
from quantchat.domain.models import Problem

RECENT = 20.0
"""Seconds. A copy that writes nothing for so long has stopped."""
SHOWN_FILES = 3
_UNFINISHED = (".incomplete", ".aria2", ".part", ".crdownload", ".partial", ".!qB", ".download", ".tmp")
_RSYNC = re.compile(r"^\.(?P<file>.+)\.[A-Za-z0-9]{6}$")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_LOCAL_DOWNLOADS = Path(".cache", "huggingface", "download")
_HUB_BLOBS = Path("..", "..", "blobs")
_CODE = re.compile(r"^(?:.+--)?(?P<module>[A-Za-z0-9_]{1,100})\.[A-Za-z0-9_]{1,100}$")
_INCOMPLETE = (
    "weights-truncated", "weights-damaged", "shards-missing", "weights-missing", "index-missing", "not-json",
    "config-missing", "tokenizer-missing",
)  # fmt: skip
"""What a folder looks like while it is written."""


def listed(names: Iterable[str]) -> str:
    """Name some files, and say that there are more."""
    found = list(names)
    shown = ", ".join(found[:SHOWN_FILES])
    return f"{shown}, …" if len(found) > SHOWN_FILES else shown


def explain_transfer(folder: Folder, problems: Sequence[Problem]) -> list[Problem]:
    """Name the cause where files are missing or cut off because a download or a copy goes on, or was left.

    Marks of old downloads mean nothing where everything is there, except aria2's: it writes the whole length first.
    """
    incomplete = [one for one in problems if one.code in _INCOMPLETE]
    preallocated = any(name.endswith(".aria2") for name in folder.entries)
    if not incomplete and not preallocated:
        return list(problems)
    marks = _unfinished(folder)
    if (moving := _newest(marks) or _growing(folder)) is not None:
        return [problem("being-copied", file=moving), *(one for one in problems if one not in incomplete)]
    return [problem("download-unfinished", files=listed(sorted(marks))), *problems] if marks else list(problems)


def _growing(folder: Folder) -> str | None:
    """Return the weight file that was written last if it grows under our eyes."""
    name = _newest({name: one.modified for name, one in folder.entries.items() if name.endswith(_WEIGHTS)})
    return name if name is not None and _grows(folder, name) else None


def _grows(folder: Folder, name: str) -> bool:
    """Whether a file is longer or newer than when the folder was listed."""
    try:
        status = os.stat(folder.join(name))
    except OSError:
        return True
    entry = folder.entries[name]
    return status.st_size != entry.size or status.st_mtime != entry.modified


def _newest(files: Mapping[str, float]) -> str | None:
    """Return the file that was written last if that was a moment ago."""
    if not files:
        return None
    name = max(files, key=lambda one: files[one])
    return name if abs(time.time() - files[name]) < RECENT else None


def _unfinished(folder: Folder) -> dict[str, float]:
    """Return the marks of transfers with their times."""
    found = {
        name: entry.modified
        for name, entry in folder.entries.items()
        if entry.regular and (name.endswith(_UNFINISHED) or _is_rsync(name))
    }
    return found | _incomplete_in(folder.path / _LOCAL_DOWNLOADS) | _hub_blobs(folder.path)


def _is_rsync(name: str) -> bool:
    match = _RSYNC.match(name)
    return match is not None and match["file"].endswith((*_WEIGHTS, ".json"))


def _hub_blobs(folder: Path) -> dict[str, float]:
    """What huggingface_hub is fetching for a snapshot: files in `blobs` that end in `.incomplete`."""
    return _incomplete_in(folder / _HUB_BLOBS) if folder.parent.name == "snapshots" else {}


def _incomplete_in(folder: Path) -> dict[str, float]:
    found = {}
    try:
        with os.scandir(folder) as items:
            for item in items:
                if item.name.endswith(".incomplete"):
                    found[item.name] = item.stat().st_mtime
    except OSError:
        return found
    return found


def judge_links(folder: Folder, names: Iterable[str]) -> list[Problem]:
    """Name the files among `names` that are links which lead nowhere."""
    return [
        problem(LINK_FAULTS[folder.entries[name].fault], file=name)
        for name in names
        if name in folder.entries and folder.entries[name].fault in LINK_FAULTS
    ]


def code_files(folder: Folder, config: JsonObject) -> tuple[str, ...]:
    """Return the Python files that remote code would run, as `auto_map` names them; empty if it wants none."""
    tokenizer = folder.json("tokenizer_config.json") or {}
    maps = [part.get("auto_map") for part in (config, text_config(config), tokenizer)]
    named = [_code_file(value) for found in maps for value in _texts(found)]
    return tuple(sorted(dict.fromkeys(named)))


def _code_file(value: str) -> str:
    match = _CODE.match(value)
    return f"{match['module']}.py" if match else "a file that is not named"


def _texts(value: object, depth: int = 3) -> list[str]:
    """Return the texts of an `auto_map`: names of classes, or pairs of them."""
    if isinstance(value, str):
        return [value] if value else []
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list) or depth == 0:
        return []
    return [text for item in inner[:100] for text in _texts(item, depth - 1)]
