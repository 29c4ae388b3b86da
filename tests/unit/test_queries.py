"""What is being typed that can be completed, and with what."""

from __future__ import annotations

import pytest

from quantchat.ui.commands import COMMANDS
from quantchat.ui.completion.queries import Query, command_candidates, find_query, path_candidates


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("/", Query("command", 0, "")),
        ("/Re", Query("command", 0, "re")),
        ("/usr/", None),
        (" /re", None),
        ("/rename a", None),
        ("/attach ", Query("path", 8, "")),
        ("/attach src/ma", Query("path", 8, "ma", "src/")),
        ("@", Query("path", 0, "", "", "@")),
        ("see @src/ma", Query("path", 4, "ma", "src/", "@")),
        ('see @"my src/a b', Query("path", 4, "a b", "my src/", '@"')),
        ("see @~/", Query("path", 4, "", "~/", "@")),
        ("a@b", None),
        ("@done ", None),
        ("", None),
    ],
)
def test_what_is_being_typed(before: str, found: Query | None) -> None:
    assert find_query(0, before, "") == found


def test_a_command_begins_the_prompt_and_ends_its_line() -> None:
    assert find_query(1, "/re", "") is None
    assert find_query(0, "/re", "st") is None


def test_every_command_is_found_by_its_name() -> None:
    for command in COMMANDS:
        for name in command.slashes:
            first = command_candidates(Query("command", 0, name))[0]
            assert first.command is command
            assert first.insert.rstrip() == f"/{name}"


def test_commands_say_what_they_take_and_whether_they_run() -> None:
    found = {candidate.insert.strip(): candidate for candidate in command_candidates(Query("command", 0, ""))}
    assert found["/rename"].label == "/rename [title]"
    assert found["/rename"].runs
    assert found["/attach"].label == "/attach file"
    assert not found["/attach"].runs
    assert found["/help"].insert == "/help"


@pytest.mark.parametrize(
    ("before", "name", "insert"),
    [
        ("@", "a.py", "@a.py "),
        ("@", "src/", "@src/"),
        ("@src/", "my file", '@"src/my file" '),
        ("@", "my src/", '@"my src/'),
        ('@"my src/', "a.py", '@"my src/a.py" '),
        ("/attach ", "my file", "my file"),
        ("/attach ", "src/", "src/"),
    ],
)
def test_paths_are_put_in_as_they_will_be_read(before: str, name: str, insert: str) -> None:
    query = find_query(0, before, "")
    assert query is not None
    (candidate,) = path_candidates(query, [name])
    assert candidate.insert == insert
    assert candidate.label == name
