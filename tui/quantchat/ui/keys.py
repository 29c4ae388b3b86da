"""The key map: bindings from the command table, with the user's own keys in their place, checked."""

from __future__ import annotations

from collections.abc import Mapping

from textual.binding import Binding
from textual.keys import Keys

from quantchat.errors import ErrorReport
from quantchat.ui.commands import COMMANDS, commands

_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
_NAMED = frozenset(key.value for key in Keys)


def is_key(name: str) -> bool:
    """Whether Textual could ever report a key of this name."""
    *modifiers, key = name.split("+")
    known = len(key) == 1 or name in _NAMED or key in _NAMED
    return known and all(modifier in _MODIFIERS for modifier in modifiers)


def key_map(own: Mapping[str, str]) -> tuple[dict[str, str], list[ErrorReport]]:
    """Merge the user's keys over the table's; what is wrong is named and left at its default.

    Args:
        own: Command id to comma-separated key names, from `[keys]` in `config.toml`.
    """
    keys = {command.id: command.keys for command in COMMANDS}
    problems = []
    for name, wanted in own.items():
        problem = _check(name, wanted, keys)
        if problem:
            problems.append(
                ErrorReport(
                    code="keys",
                    title=f"The key setting for {name!r} is ignored",
                    detail=problem,
                    remedy="Change it under [keys] in config.toml; F1 lists commands and keys",
                )
            )
        else:
            keys[name] = ",".join(part.strip() for part in wanted.split(","))
    return keys, problems


def _check(name: str, wanted: str, keys: Mapping[str, str]) -> str:
    if name not in keys:
        return f"there is no command of that name; there are {', '.join(keys)}"
    for key in (part.strip() for part in wanted.split(",")):
        if not is_key(key):
            return f"{key!r} is not the name of a key"
        taken = next((other for other, used in keys.items() if other != name and key in used.split(",")), None)
        if taken:
            return f"{key!r} belongs to {taken}"
    return ""


def bindings() -> list[Binding]:
    """Return a binding for each command; they win over the prompt's own keys, and `App.set_keymap` moves them."""
    return [
        Binding(command.keys, command.action, command.title, show=False, priority=True, id=command.id)
        for command in commands("everywhere")
        if command.keys
    ]
