"""What is being typed that can be completed, and with what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quantchat.domain.text import clean
from quantchat.ui.commands import COMMANDS, Command, find_slash

_NAME = re.compile(r"/([a-z-]*)", re.IGNORECASE)
_ARGUMENT = re.compile(r"(/[a-z-]+) +", re.IGNORECASE)
_LISTED: Mapping[str, Literal["preset", "prompt", "value"]] = {
    "[preset]": "preset",
    "[prompt]": "prompt",
    "[value]": "value",
}
_PATHS = ("file", "[file]")
"""Arguments of commands that are names from a list, and those that are paths."""
_MENTION = re.compile(r'(?<!\S)@(?:"([^"]*)|([^\s"]*))$')


@dataclass(frozen=True)
class Query:
    """A word before the cursor that can be completed.

    Attributes:
        start: Column at which the word begins.
        folder: What stands before the last part of a path, with its slash.
        prefix: What is to be completed: the name of a command, a preset and so on, or the last part of a path.
        lead: What stands before the path in the word: `@`, `@"`, or nothing.
    """

    kind: Literal["command", "path", "preset", "prompt", "value"]
    start: int
    prefix: str
    folder: str = ""
    lead: str = ""


@dataclass(frozen=True)
class Candidate:
    """A completion.

    Attributes:
        insert: What takes the place of the word.
        command: The command that it names, if it is one.
        more: Whether there is more to complete behind it, as in a folder.
        ends: Whether nothing can follow it, so that Enter runs the line.
    """

    label: str
    insert: str
    detail: str = ""
    command: Command | None = None
    more: bool = False
    ends: bool = False

    @property
    def runs(self) -> bool:
        """Whether Enter need not wait for an argument."""
        command = self.command
        return self.ends or (command is not None and (not command.argument or command.argument.startswith("[")))


def find_query(row: int, before: str, behind: str) -> Query | None:
    """Find what can be completed in a line at the cursor."""
    if row == 0 and not behind and (name := _NAME.fullmatch(before)):
        return Query("command", 0, name[1].lower())
    if row == 0 and (found := _ARGUMENT.match(before)):
        command = find_slash(found[1])
        begun = before[found.end() :]
        if command is not None and command.argument in _PATHS:
            return _path(found.end(), begun, "")
        if command is not None and (kind := _LISTED.get(command.argument)):
            return None if behind else Query(kind, found.end(), begun)
    mention = _MENTION.search(before)
    if mention is None:
        return None
    quoted, bare = mention.groups()
    return _path(mention.start(), bare if quoted is None else quoted, "@" if quoted is None else '@"')


def _path(start: int, path: str, lead: str) -> Query:
    folder, slash, prefix = path.rpartition("/")
    return Query("path", start, prefix, folder + slash, lead)


def command_candidates(query: Query) -> list[Candidate]:
    """The commands whose names begin so; the exact one first."""
    found = []
    for command in COMMANDS:
        names = [name for name in command.slashes if name.startswith(query.prefix)]
        name = query.prefix if query.prefix in names else next(iter(names), None)
        if name is not None:
            label = f"/{name} {command.argument}".rstrip()
            found.append(Candidate(label, f"/{name}{' ' if command.argument else ''}", command.help, command))
    return sorted(found, key=lambda candidate: candidate.insert.strip() != f"/{query.prefix}")


def word_candidates(query: Query, known: Mapping[str, str]) -> list[Candidate]:
    """The names that begin so, with what they mean; behind a value's name stands the value."""
    begun, more = query.prefix.casefold(), query.kind == "value"
    return [
        Candidate(
            clean(name, newlines=False), f"{name} " if more else name, clean(meaning, newlines=False), ends=not more
        )
        for name, meaning in known.items()
        if name.casefold().startswith(begun)
    ]


def path_candidates(query: Query, names: Sequence[str]) -> list[Candidate]:
    """Completions of a path with names of its folder."""
    return [_path_candidate(query, name) for name in names]


def _path_candidate(query: Query, name: str) -> Candidate:
    path = query.folder + name
    if name.endswith("/"):
        lead = '@"' if query.lead and " " in path else query.lead
        return Candidate(name, lead + path, more=True)
    if not query.lead:
        return Candidate(name, path)
    quote = '"' if query.lead == '@"' or " " in path else ""
    return Candidate(name, f"@{quote}{path}{quote} ")
