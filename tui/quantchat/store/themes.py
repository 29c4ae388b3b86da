"""Theme files: validated data. A faulty one is named and left out; it never stops the program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
_VARIABLE_COLOUR = re.compile(rf"(?:{_HEX}|ansi_[a-z_]+)(?: \d{{1,3}}%)?")
_CONTRAST = re.compile(r"auto(?: \d{1,3}%)?")
_STYLES = re.compile(
    r"none|(?:bold|dim|italic|underline|reverse|strike)(?: (?:bold|dim|italic|underline|reverse|strike))*"
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

    @property
    def native(self) -> bool:
        """Whether it leaves its colours to the terminal's own palette."""
        return self.background in ANSI_COLOURS


NOT_COLOURS = frozenset({"name", "dark", "variables"})
COLOURS = tuple(name for name in ThemeFile.__struct_fields__ if name not in NOT_COLOURS)


class ThemeFolders:
    """The themes of some folders, of which later ones win.

    Attributes:
        themes: All usable themes by name.
        problems: What is wrong with files now.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._read: dict[Path, _Reading] = {}
        self.themes: dict[str, ThemeFile] = {}
        self.problems: list[ErrorReport] = []

    def look(self) -> bool:
        """Read files that are new or have changed; return whether there were any. Never raises.

        A file that has become unusable leaves its theme as it was last.
        """
        found: dict[Path, _Reading] = {}
        problems: list[ErrorReport] = []
        for folder in self._folders:
            paths, wrong = _theme_files(folder)
            problems += wrong
            found |= {path: _read_again(path, self._read.get(path)) for path in paths}
        problems += [problem for reading in found.values() for problem in reading.problems]
        changed = found != self._read or problems != self.problems
        self._read, self.problems = found, problems
        self.themes = {reading.theme.name: reading.theme for reading in found.values() if reading.theme is not None}
        return changed


class _Reading(NamedTuple):
    """A theme file as it was when it was read; `stamp` tells whether it has changed since."""

    stamp: tuple[int, int, int]
    theme: ThemeFile | None
    problems: list[ErrorReport]


def load_themes(*folders: Path) -> tuple[dict[str, ThemeFile], list[ErrorReport]]:
    """Read all `*.toml` of some folders; later folders win over earlier ones. Never raises."""
    themes = ThemeFolders(*folders)
    themes.look()
    return themes.themes, themes.problems


def is_theme_name(name: str) -> bool:
    """Whether a theme may be called so; such a name is also safe as that of a file."""
    return _THEME_NAME.fullmatch(name) is not None


def _theme_files(folder: Path) -> tuple[list[Path], list[ErrorReport]]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml"), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [translate_os_error(error, folder, reading=True).report]


def _read_again(path: Path, before: _Reading | None) -> _Reading:
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        stamp = (0, 0, 0)
    if before is not None and before.stamp == stamp:
        return before
    theme, problems = read_theme(path)
    return _Reading(stamp, theme or (before.theme if before is not None else None), problems)


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
        return None, [_report(path, "; ".join(f"`{fault.key}` {fault.reason}" for fault in faults))]
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
    if "name" in good and not is_theme_name(good["name"]):
        yield Fault("name", f"is {good['name']!r}; allowed are letters, digits, `-` and `_`")
    for name, value in good.get("variables", {}).items():
        if not _VARIABLE_NAME.fullmatch(name):
            yield Fault(f"variables.{name}", "is not a name; allowed are small letters, digits and `-`")
        elif not _is_variable_value(name, value):
            yield Fault(f"variables.{name}", f"is {value!r}; {_variable_rule(name)}")


def _is_style(name: str) -> bool:
    return "style" in name.split("-")


def _variable_rule(name: str) -> str:
    if _is_style(name):
        return "allowed are `none`, or text styles such as `bold underline`"
    contrast = ", or `auto 60%` for a contrast to what is behind" if _may_be_auto(name) else ""
    return f"{COLOUR_RULE} each with an optional percentage{contrast}"


def _may_be_auto(name: str) -> bool:
    return name.split("-")[0] == "text" or name.endswith("-foreground")


def _is_variable_value(name: str, value: str) -> bool:
    """Whether the style sheets can take it; one that they cannot would end the program."""
    if _is_style(name):
        return _STYLES.fullmatch(value) is not None
    if _may_be_auto(name) and _CONTRAST.fullmatch(value):
        return True
    first = value.split(" ")[0]
    known = not first.startswith("ansi_") or first in ANSI_COLOURS
    return known and _VARIABLE_COLOUR.fullmatch(value) is not None


def unusable(name: str) -> str:
    """The title of a report about a theme whose file is wrong."""
    return f"The theme {name} cannot be used"


def _report(path: Path, detail: str) -> ErrorReport:
    return ErrorReport(
        code="theme",
        title=unusable(path.stem),
        detail=f"{path}: {detail}",
        remedy="Correct the file; it is read again as soon as it is saved",
    )
