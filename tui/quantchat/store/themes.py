"""Theme files: validated data. A faulty one is named and left out; it never stops the program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantchat.errors import ErrorReport
from quantchat.store.atomic import translate_os_error
from quantchat.store.fields import Fault, convert_table, read_toml

_HUES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
ANSI_COLOURS = frozenset({"ansi_default", *(f"ansi_{h}" for h in _HUES), *(f"ansi_bright_{h}" for h in _HUES)})
COLOUR_RULE = "allowed are `#rgb`, `#rrggbb` and the terminal's own `ansi_default`, `ansi_red`, `ansi_bright_red`, ..."

_HEX = r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})"
_HEX_COLOUR = re.compile(_HEX)
_VARIABLE_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE_VALUE = re.compile(
    rf"(?:{_HEX}|ansi_[a-z_]+|auto)(?: \d{{1,3}}%)?|\d{{1,3}}%"
    r"|(?:none|bold|dim|italic|underline|reverse|strike)(?: (?:bold|dim|italic|underline|reverse|strike))*"
)
_THEME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class ThemeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A theme as its file says it.

    Attributes:
        dark: Whether the background is darker than the text.
        variables: Further names of the style sheets, such as `footer-key-foreground`.
    """

    name: str
    dark: bool
    primary: str
    secondary: str
    accent: str
    foreground: str
    background: str
    surface: str
    panel: str
    success: str
    warning: str
    error: str
    variables: dict[str, str] = {}


NOT_COLOURS = frozenset({"name", "dark", "variables"})
COLOURS = tuple(name for name in ThemeFile.__struct_fields__ if name not in NOT_COLOURS)


def load_themes(shipped: Path, user: Path) -> tuple[dict[str, ThemeFile], list[ErrorReport]]:
    """Read all `*.toml` of both folders; the user's win over shipped ones of the same name. Never raises."""
    themes: dict[str, ThemeFile] = {}
    reports: list[ErrorReport] = []
    for folder in (shipped, user):
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
        except FileNotFoundError:
            continue
        except OSError as error:
            reports.append(translate_os_error(error, folder, reading=True).report)
            continue
        for path in files:
            theme, wrong = read_theme(path)
            reports += wrong
            if theme is not None:
                themes[theme.name] = theme
    return themes, reports


def read_theme(path: Path) -> tuple[ThemeFile | None, list[ErrorReport]]:
    """Read one theme, or say all that is wrong with it. Never raises."""
    try:
        table = read_toml(path)
    except OSError as error:
        return None, [translate_os_error(error, path, reading=True).report]
    except ValueError as error:
        return None, [_report(path, str(error))]
    good, faults = convert_table(table, ThemeFile)
    faults += _missing(table)
    faults += _bad_values(good)
    if faults:
        return None, [_report(path, f"`{fault.key}` {fault.reason}") for fault in faults]
    return ThemeFile(**good), []


def is_colour(value: str) -> bool:
    """Whether a theme may use this colour."""
    return value in ANSI_COLOURS or _HEX_COLOUR.fullmatch(value) is not None


def _missing(table: Mapping[str, Any]) -> Iterator[Fault]:
    for field in msgspec.structs.fields(ThemeFile):
        if field.required and field.name not in table:
            rule = COLOUR_RULE if field.name in COLOURS else "it must be set"
            yield Fault(field.name, f"is missing; {rule}")


def _bad_values(good: Mapping[str, Any]) -> Iterator[Fault]:
    for key in COLOURS:
        if key in good and not is_colour(good[key]):
            yield Fault(key, f"is {good[key]!r}; {COLOUR_RULE}")
    if "name" in good and not _THEME_NAME.fullmatch(good["name"]):
        yield Fault("name", f"is {good['name']!r}; allowed are letters, digits, `-` and `_`")
    for name, value in good.get("variables", {}).items():
        if not _VARIABLE_NAME.fullmatch(name):
            yield Fault(f"variables.{name}", "is not a name; allowed are small letters, digits and `-`")
        elif not _is_variable_value(value):
            yield Fault(
                f"variables.{name}",
                f"is {value!r}; {COLOUR_RULE} each with an optional percentage, or text styles such as `bold`",
            )


def _is_variable_value(value: str) -> bool:
    if not _VARIABLE_VALUE.fullmatch(value):
        return False
    first = value.split()[0]
    return not first.startswith("ansi_") or first in ANSI_COLOURS


def _report(path: Path, detail: str) -> ErrorReport:
    return ErrorReport(
        code="theme",
        title=f"The theme {path.stem} cannot be used",
        detail=f"{path}: {detail}",
        remedy="Correct the file; until then another theme is used",
    )
