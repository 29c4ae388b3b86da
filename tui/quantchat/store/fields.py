"""Tables that people write by hand: every wrong key is named, and the right ones still count."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec


class Fault(NamedTuple):
    """One key that is wrong; `key` is dotted."""

    key: str
    reason: str


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not TOML; the text names line and column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 text (byte {error.start})") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {len(text.splitlines())}, the end of the file"
        raise ValueError(str(error).replace("at end of document", last)) from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def convert_table(
    table: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str = ""
) -> tuple[dict[str, Any], list[Fault]]:
    """Convert each value of a table to the type of its field; return the good ones and the faults."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, value in table.items():
        if key not in fields:
            faults.append(Fault(prefix + key, unknown_key(key, fields)))
            continue
        converted, wrong = _convert(value, fields[key].type, prefix + key)
        faults += wrong
        if converted is not msgspec.UNSET:
            good[key] = converted
    return good, faults


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is not known, and which one was probably meant."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}"
    return f"is not a known key; {hint}"


def line_of(text: str, key: str) -> int:
    """Find the line, counted from 1, on which a dotted key is set; 0 if it is written in some unusual way."""
    *tables, name = key.split(".")
    wanted, table = ".".join(tables), ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = heading[1].strip()
        elif table == wanted and re.match(rf"""\s*["']?{re.escape(name)}["']?\s*=""", line):
            return number
    return 0


def _convert(value: Any, kind: Any, key: str) -> tuple[Any, list[Fault]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        good, faults = convert_table(value, kind, f"{key}.")
        required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
        faults += [Fault(f"{key}.{name}", "is missing") for name in required if name not in value]
        return (kind(**good) if good.keys() >= set(required) else msgspec.UNSET), faults
    if getattr(kind, "__origin__", None) is dict and isinstance(value, Mapping):
        names, values = get_args(kind)
        return _convert_items(value, names, values, key)
    try:
        return msgspec.convert(value, kind), []
    except msgspec.ValidationError as error:
        return msgspec.UNSET, [Fault(key, f"{_shown(value)} is not allowed: {_wanted(kind) or _lower(error)}")]


def _convert_items(table: Mapping[str, Any], names: Any, kind: Any, key: str) -> tuple[dict[str, Any], list[Fault]]:
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in table.items():
        named, bad_name = _convert(name, names, f"{key}.{name}")
        converted, wrong = _convert(value, kind, f"{key}.{name}")
        faults += [*bad_name, *wrong]
        if msgspec.UNSET not in (named, converted):
            good[name] = converted
    return good, faults


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _wanted(kind: Any) -> str:
    """What is allowed, where examples say it better than a pattern."""
    examples = [one for meta in getattr(kind, "__metadata__", ()) for one in getattr(meta, "examples", None) or ()]
    return f"expected such as {' or '.join(map(repr, examples))}" if examples else ""


def _lower(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
