"""The key map: bindings from the command table, with the user's own keys in their place, checked."""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterator, Mapping
from dataclasses import replace

from textual.binding import Binding
from textual.keys import Keys, _character_to_key, key_to_character

from quantchat.errors import ErrorReport
from quantchat.ui.commands import COMMANDS, Scope, commands

OwnKeys = Mapping[str, str | Mapping[str, str]]
"""`[keys]` of `config.toml`: command id to keys; tables such as `[keys.read]` and `[keys.list]` leave out the scope."""

_UNBOUND = "unbound."
_MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")
_PUNCTUATION = {_character_to_key(character): character for character in string.punctuation}
_NAMED = frozenset({*(key.value for key in Keys if "+" not in key.value), *_PUNCTUATION})
_ALIASES = {
    "control": "ctrl",
    "option": "alt",
    "esc": "escape",
    "return": "enter",
    "del": "delete",
    "ins": "insert",
    "pgup": "pageup",
    "page_up": "pageup",
    "page up": "pageup",
    "pgdn": "pagedown",
    "page_down": "pagedown",
    "page down": "pagedown",
}
_SENT_AS = {
    "ctrl+h": "Backspace",
    "ctrl+i": "Tab",
    "ctrl+m": "Enter",
    "alt+enter": "Enter",
    "ctrl+left_square_bracket": "Esc",
}
"""Keys that terminals do not tell from others."""

_WRITING = ("enter", "shift+enter", "ctrl+j", "tab", "shift+tab", "backspace", "delete", "space", "left", "right")
_MOVING = ("up", "down", "home", "end", "pageup", "pagedown")
_RESERVED: Mapping[Scope, frozenset[str]] = {
    "everywhere": frozenset(_WRITING + _MOVING),
    "prompt": frozenset(_WRITING),
    "reading": frozenset({"tab", "shift+tab"}),
    "list": frozenset({"tab", "shift+tab", "enter"}),
    "session": frozenset({"tab", "shift+tab", "enter"}),
}
_SCOPES: Mapping[str, Scope] = {command.id: command.scope for command in COMMANDS}


def bindings(scope: Scope = "everywhere") -> list[Binding]:
    """Return a binding for each command of a scope; `App.set_keymap` moves them.

    Those of the scope `everywhere` win over the prompt's own keys.
    """
    return [
        Binding(
            command.keys or _UNBOUND + command.id,
            command.action,
            command.title,
            show=False,
            priority=scope == "everywhere",
            id=command.id,
        )
        for command in commands(scope)
    ]


def scroll_bindings() -> list[Binding]:
    """Return the keys of lists for a part that scrolls instead of having a cursor."""
    actions = {
        "list.down": "scroll_down",
        "list.up": "scroll_up",
        "list.first": "scroll_home",
        "list.last": "scroll_end",
        "list.page-up": "page_up",
        "list.page-down": "page_down",
    }
    found = {binding.id: binding for binding in bindings("list")}
    return [replace(found[name], action=action) for name, action in actions.items()]


def textual_keymap(keys: Mapping[str, str]) -> dict[str, str]:
    """Write the changed part of a key map for `App.set_keymap`, which takes an empty entry for none at all."""
    changed = {command.id: keys[command.id] for command in COMMANDS if keys[command.id] != command.keys}
    return {name: used or _UNBOUND + name for name, used in changed.items()}


def key_map(own: OwnKeys) -> tuple[dict[str, str], list[ErrorReport]]:
    """Merge the user's keys over the table's; what is wrong is named and left at its default."""
    defaults = {command.id: command.keys for command in COMMANDS}
    wanted: dict[str, str] = {}
    problems = []
    for name, written in _flat(own):
        try:
            wanted[name] = _read(name, written)
        except ValueError as error:
            problems.append(_report(name, str(error)))
    while clash := _clash(defaults | wanted, wanted):
        name, other, key = clash
        del wanted[name]
        problems.append(_report(name, f"{show_keys(key)} belongs to {other!r}"))
    return defaults | wanted, problems


def clashes(keys: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Yield the commands that one key would run as well, each with that key."""
    for key in _split(keys[name]):
        for other, used in keys.items():
            if other != name and _overlap(name, other) and key in _split(used):
                yield other, key


def is_key(name: str) -> bool:
    """Whether Textual could ever report a key of this name."""
    *modifiers, key = name.split("+")
    return (len(key) == 1 or key in _NAMED) and all(modifier in _MODIFIERS for modifier in modifiers)


def show_keys(keys: str) -> str:
    """Write key names as people say them: `ctrl+l,f4` becomes `Ctrl+L / F4`."""
    names = {"escape": "Esc", "pageup": "Page Up", "pagedown": "Page Down"} | _PUNCTUATION
    shown = []
    for name in _split(keys):
        *modifiers, key = name.split("+")
        alone = len(key) == 1 and not modifiers
        shown.append(
            "+".join([*map(str.capitalize, modifiers), names.get(key) or (key if alone else key.capitalize())])
        )
    return " / ".join(shown)


def _flat(own: OwnKeys) -> Iterator[tuple[str, str]]:
    for name, value in own.items():
        if isinstance(value, str):
            yield name, value
        else:
            yield from ((f"{name}.{inner}", keys) for inner, keys in value.items())


def _read(name: str, written: str) -> str:
    if name not in _SCOPES:
        near = difflib.get_close_matches(name, _SCOPES, n=1)
        raise ValueError("there is no such command" + (f"; did you mean {near[0]!r}?" if near else ""))
    keys = [_normal(part) for part in written.split(",")] if written.strip() else []
    for key in keys:
        _check(key, _SCOPES[name])
    return ",".join(dict.fromkeys(keys))


def _normal(written: str) -> str:
    """Write a key as Textual reports it: `Ctrl+L` is `ctrl+l`, `shift+g` is `G`, `/` is `slash`, `+` `plus`."""
    written = written.strip()
    if written == "+" or written.endswith("++"):
        written = f"{written[:-1]}plus"
    *modifiers, key = [part.strip() for part in written.split("+")]
    modifiers = sorted({_ALIASES.get(modifier.lower(), modifier.lower()) for modifier in modifiers})
    if len(key) == 1:
        if modifiers == ["shift"] and key.isalpha():
            return key.upper()
        return "+".join([*modifiers, _character_to_key(key.lower() if modifiers else key)])
    return "+".join([*modifiers, _ALIASES.get(key.lower(), key.lower())])


def _check(key: str, scope: Scope) -> None:
    if not is_key(key):
        near = _nearest(key)
        raise ValueError(f"{key!r} is not the name of a key" + (f"; did you mean {near!r}?" if near else ""))
    if key in _SENT_AS:
        raise ValueError(f"terminals send {show_keys(key)} as {_SENT_AS[key]}")
    if key.startswith("alt+") and key.removeprefix("alt+").isdigit():
        raise ValueError(f"many terminals do not send {show_keys(key)}")
    if key in _RESERVED[scope]:
        raise ValueError(f"{show_keys(key)} has a meaning of its own there")
    if scope in ("everywhere", "prompt") and (_PUNCTUATION.get(key) or key_to_character(key) or "\n").isprintable():
        raise ValueError(f"{show_keys(key)} could not be typed any more; add Ctrl or Alt, or take a function key")


def _nearest(name: str) -> str:
    *modifiers, key = name.split("+")
    parts = [_close(modifier, _MODIFIERS) for modifier in modifiers]
    parts.append(key if len(key) == 1 else _close(key, sorted(_NAMED)))
    return "+".join(parts) if all(parts) else ""


def _close(word: str, known: tuple[str, ...] | list[str]) -> str:
    return word if word in known else next(iter(difflib.get_close_matches(word, known, n=1)), "")


def _clash(keys: Mapping[str, str], wanted: dict[str, str]) -> tuple[str, str, str] | None:
    """Find a wanted command one of whose keys is taken; the one written later gives way."""
    for name in reversed(wanted):
        for other, key in clashes(keys, name):
            return name, other, key
    return None


def _overlap(name: str, other: str) -> bool:
    scopes = {_SCOPES[name], _SCOPES[other]}
    return len(scopes) == 1 or "everywhere" in scopes or scopes == {"list", "session"}


def _split(keys: str) -> list[str]:
    return [key for key in keys.split(",") if key]


def _report(name: str, detail: str) -> ErrorReport:
    return ErrorReport(
        code="keys",
        title=f"The key setting for {name!r} is ignored",
        detail=detail,
        remedy="Change it under [keys] in config.toml; F1 lists commands and keys",
    )
