"""Presets and prompts in and out of their folders: single files, folders of them, and bundles."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from quantchat.domain.text import plain
from quantchat.errors import UsageError
from quantchat.store.atomic import write_atomic
from quantchat.store.library import NamedFiles, check_name, is_name, preset_files, prompt_files, read_small, text_of
from quantchat.store.prompts import (
    parse_toml,
    preset_text,
    presets_bundle,
    prompts_bundle,
    read_presets,
    read_prompts,
    sound_preset,
)

Kind = Literal["presets", "prompts"]
BUNDLE = ".toml"
STANDARD = "-"
"""Names standard input and output."""


class Imported(NamedTuple):
    """What an import did, by name."""

    added: list[str]
    replaced: list[str]
    same: list[str]


def files_of(kind: Kind) -> NamedFiles:
    """The folder of a library."""
    return preset_files() if kind == "presets" else prompt_files()


def texts_of(kind: Kind, names: Iterable[str] = ()) -> dict[str, str]:
    """Return the texts of a library by name, all of them if none are named.

    Raises:
        UsageError: if there is none of a name, or its file is wrong.
    """
    files = files_of(kind)
    return {name: _sound(kind, name, files.read(name)) for name in names or files.names()}


def import_from(kind: Kind, sources: Iterable[str], *, replace: bool = False) -> Imported:
    """Take files, folders of files and bundles into a library: all that they hold, or nothing.

    What is there already with the same contents stays; other contents under the same name are only replaced on demand,
    and the old ones go to the trash.

    Raises:
        UsageError: if a source is wrong, empty, or would replace something.
        StorageError: if the disk refuses.
    """
    wanted: dict[str, str] = {}
    for source in sources:
        for name, text in _read_source(kind, source).items():
            if wanted.setdefault(name, text) != text:
                raise UsageError(f"Two of the files hold a {kind[:-1]} {name}", "and they differ", code="twice")
    files = files_of(kind)
    there = set(files.names())
    same = [name for name in wanted if name in there and files.read(name) == wanted[name]]
    replaced = [name for name in wanted if name in there and name not in same]
    if replaced and not replace:
        raise UsageError(
            f"There are {kind} of these names with other contents",
            ", ".join(replaced),
            "Import with --replace to put the new ones in their place; the old ones go to the trash",
            code="exists",
        )
    added = [name for name in wanted if name not in there]
    _write_all(files, {name: wanted[name] for name in (*added, *replaced)}, replace=replace)
    return Imported(added, replaced, same)


def _write_all(files: NamedFiles, texts: Mapping[str, str], *, replace: bool) -> None:
    """Write all of them; where the disk refuses in the middle, put back what was."""
    before = {name: files.read(name) for name in files.names() if name in texts}
    written: list[str] = []
    try:
        for name, text in texts.items():
            files.write(name, text, replace=replace)
            written.append(name)
    except Exception:
        for name in written:
            if name in before:
                files.write(name, before[name], replace=True)
            else:
                files.remove(name)
        raise


def _read_source(kind: Kind, source: str) -> dict[str, str]:
    if source == STANDARD:
        return _bundle(kind, text_of(sys.stdin.buffer.read(), "standard input"), "standard input")
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(kind, path)
    text = read_small(path)
    if path.suffix == BUNDLE and (kind == "prompts" or read_presets(text, str(path)) is not None):
        return _bundle(kind, text, str(path))
    check_name(path.stem, kind[:-1])
    return {path.stem: _sound(kind, path.stem, text, str(path))}


def _read_folder(kind: Kind, path: Path) -> dict[str, str]:
    files = NamedFiles(path, kind[:-1], files_of(kind).suffixes)
    found = {name: _sound(kind, name, files.read(name), str(files.path(name))) for name in files.names()}
    if not found:
        raise UsageError(f"There are no {kind} in {path}", f"they end in {' or '.join(files.suffixes)}", code="empty")
    return found


def _bundle(kind: Kind, text: str, name: str) -> dict[str, str]:
    if kind == "prompts":
        return {key: plain(value).removesuffix("\n") for key, value in read_prompts(text, name).items()}
    presets = read_presets(text, name)
    if presets is None:
        raise UsageError(f"{name} holds no presets", "it needs tables such as [presets.careful]", code="bundle")
    return {key: preset_text(values) for key, values in presets.items()}


def _sound(kind: Kind, name: str, text: str, file: str = "") -> str:
    """Check what a file of the library would hold, and return it as it is kept."""
    if kind == "presets":
        sound_preset(parse_toml(text, file or name), file or name, text)
    return text


def export_to(kind: Kind, texts: Mapping[str, str], target: str, *, replace: bool = False) -> list[Path]:
    """Write texts as files into a folder that is there, or as one bundle; return what was written.

    Raises:
        UsageError: if there is something of that name, or nothing to export.
        StorageError: if the disk refuses.
    """
    path = Path(target).expanduser()
    suffix = files_of(kind).suffixes[0]
    if path.is_dir():
        whole = {path / f"{name}{suffix}": f"{text}\n" for name, text in texts.items() if is_name(name)}
    else:
        whole = {path: bundle_of(kind, texts)}
    taken = [str(file) for file in whole if file.exists()]
    if taken and not replace:
        raise UsageError(
            "There are files of these names", ", ".join(taken), "--replace writes over them", code="exists"
        )
    for file, text in whole.items():
        write_atomic(file, text.encode("utf-8", "replace"))
    return list(whole)


def bundle_of(kind: Kind, texts: Mapping[str, str]) -> str:
    """Write texts as one bundle."""
    if kind == "prompts":
        return prompts_bundle(texts)
    return presets_bundle({name: sound_preset(parse_toml(text, name), name) for name, text in texts.items()})
