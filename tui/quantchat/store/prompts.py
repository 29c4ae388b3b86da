"""What libraries of presets and prompt templates look like as text: single files, and bundles of many in one TOML file.

A bundle of presets holds the tables `[presets.NAME]` of `config.toml`; one of prompts the table `[prompts]`, name to
text.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import UsageError
from quantchat.store.fields import convert_table, line_of
from quantchat.store.library import check_name

_QUOTES = re.compile(r'"(?="|$)')
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        UsageError: if it is none; it names line and column.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{name} is no TOML file", f"{error}", code="toml") from error


def read_preset(table: Mapping[str, Any], name: str, text: str = "") -> tuple[SamplingOverrides, list[UsageError]]:
    """Read the values of a preset; the right ones count, and each wrong one is told with its line in `text`."""
    good, faults = convert_table(table, SamplingOverrides)
    problems = []
    for fault in faults:
        line = line_of(text, fault.key)
        where = f"{name}, line {line}" if line else name
        problems.append(UsageError("A preset is wrong", f"{where}: `{fault.key}` {fault.reason}", code="preset-wrong"))
    return SamplingOverrides(**good), problems


def preset_text(values: SamplingOverrides) -> str:
    """Write a preset as a file of its own."""
    import tomlkit

    return tomlkit.dumps(_plain(values)).rstrip("\n")


def presets_bundle(presets: Mapping[str, SamplingOverrides]) -> str:
    """Write presets as they also stand in `config.toml`."""
    import tomlkit

    return tomlkit.dumps({"presets": {name: _plain(values) for name, values in presets.items()}})


def _plain(values: SamplingOverrides) -> dict[str, Any]:
    # Tables last, as TOML wants them.
    table: dict[str, Any] = msgspec.to_builtins(values)
    return dict(sorted(table.items(), key=lambda item: isinstance(item[1], dict)))


def read_presets(text: str, name: str) -> dict[str, SamplingOverrides] | None:
    """Read a bundle of presets; None if the file holds no table of them.

    Raises:
        UsageError: if anything in it is wrong.
    """
    tables = parse_toml(text, name).get("presets")
    if tables is None:
        return None
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{name} holds no presets", "`presets` must be a table of tables", code="bundle")
    return {_checked(key, "preset"): sound_preset(table, f"{name}: {key}") for key, table in tables.items()}


def sound_preset(table: Mapping[str, Any], name: str, text: str = "") -> SamplingOverrides:
    """Read a preset.

    Raises:
        UsageError: the first thing that is wrong in it.
    """
    values, problems = read_preset(table, name, text)
    if problems:
        raise problems[0]
    return values


def prompts_bundle(prompts: Mapping[str, str]) -> str:
    """Write prompts into one file, their lines as they are."""
    return "\n".join(["[prompts]", *(f"{_key(name)} = {_lines(text)}\n" for name, text in prompts.items())])


def read_prompts(text: str, name: str) -> dict[str, str]:
    """Read a bundle of prompts.

    Raises:
        UsageError: if it is none.
    """
    prompts = parse_toml(text, name).get("prompts")
    if not isinstance(prompts, dict) or not all(isinstance(value, str) for value in prompts.values()):
        raise UsageError(
            f"{name} holds no prompts", "it needs a table [prompts] with a text for each name", code="bundle"
        )
    return {_checked(key, "prompt"): value for key, value in prompts.items()}


def _checked(name: str, what: str) -> str:
    check_name(name, what)
    return name


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _lines(text: str) -> str:
    escaped = _QUOTES.sub(r"\\" + '"', text.replace("\\", "\\\\"))
    escaped = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped)
    return f'"""\n{escaped}"""'
