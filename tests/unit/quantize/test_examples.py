"""Calibration files that are not in order: refused with the line, what was found, and how it should be."""

from __future__ import annotations

import codecs
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from calibration_rig import QUIET, conversations
from quantchat.errors import JobError
from quantchat.quantize import examples, textfile
from quantchat.quantize.examples import Examples, NotAnExample, parse

GOOD = b'{"messages": [{"role": "user", "content": "x"}]}'


def line(*messages: object) -> bytes:
    return json.dumps({"messages": messages}).encode()


def user(content: object = "x") -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b"hello", "not JSON"),
        (GOOD + b" trailing", "not JSON"),
        (GOOD.replace(b'"x"', b'"x\x00"'), "not JSON"),
        (GOOD.replace(b'"x"', b'"\xff"'), "not JSON"),
        (GOOD.replace(b'"x"', b'"\\ud800"'), "not JSON"),
        (GOOD.replace(b'"x"', b"NaN"), "not JSON"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"[]", "it is a list, not an object"),
        (b"3", "it is a number, not an object"),
        (b"null", "it is null, not an object"),
        (b"{}", 'it is empty, and should have "messages" alone'),
        (b'{"prompt": "x", "completion": "y"}', 'has "prompt" and "completion", and should have "messages" alone'),
        (b'{"messages": [{"role": "user", "content": "x"}], "id": 3}', 'has "messages" and "id"'),
        (b'{"conversations": [{"from": "human", "value": "x"}]}', 'has "conversations"'),
        (b'{"messages": 3}', '"messages" is a number, not a list'),
        (b'{"messages": "x"}', '"messages" is a text, not a list'),
        (b'{"messages": {"messages": []}}', '"messages" is an object, not a list'),
        (b'{"messages": []}', '"messages" is empty'),
        (line("x"), "message 1 is a text, not an object"),
        (line(user(), [user()]), "message 2 is a list, not an object"),
        (line(user(), {}), 'message 2 is empty, and should have "role" and "content" alone'),
        (line({"role": "user"}), 'message 1 has "role", and should have'),
        (
            line(user(), {"role": "user", "content": "x", "name": "Ann"}),
            'message 2 has "role" and "content" and "name"',
        ),
        (line({"from": "human", "value": "x"}), 'message 1 has "from" and "value"'),
        (
            line({"role": "bot", "content": "x"}),
            'message 1 has the role "bot"; there are system, user, assistant, tool',
        ),
        (line({"role": None, "content": "x"}), "the role null"),
        (line({"role": ["user"], "content": "x"}), "the role a list"),
        (line({"role": "User", "content": "x"}), 'the role "User"'),
        (line(user(None)), "the content of message 1 is null, not a text"),
        (line(user([{"type": "text", "text": "x"}])), "the content of message 1 is a list, not a text"),
        (line(user(True)), "the content of message 1 is true or false, not a text"),
        (line(user("")), "the content of message 1 is empty"),
        (line(user(), user(" \n\t")), "the content of message 2 is empty"),
        (line(user("\x07\x00")), "the content of message 1 is empty"),
        (line({"role": "assistant", "content": "x"}), "no message is the user's"),
        (line({"role": "system", "content": "x"}, {"role": "tool", "content": "x"}), "no message is the user's"),
    ],
)
def test_a_line_that_is_not_in_order_is_named(tmp_path: Path, bad: bytes, reason: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD + b"\n\n" + bad + b"\n" + GOOD)
    with pytest.raises(JobError, match=reason) as caught:
        conversations(path)
    report = caught.value.report
    assert report.detail.startswith("line 3 of set.jsonl: ")
    assert examples.EXAMPLE in report.remedy
    assert report.code == "calibration-line"
    assert len(report.detail) < 400


def test_the_example_that_the_error_shows_is_one() -> None:
    assert [message.role for message in parse(examples.EXAMPLE.encode())] == ["user", "assistant"]


def test_what_is_shown_of_a_line_is_clean() -> None:
    with pytest.raises(NotAnExample) as caught:
        parse(json.dumps({"\x1b[2J\u202e" + "k" * 500: 1}).encode())
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + GOOD,
        codecs.BOM_UTF8 + b"\r\n" + GOOD + b"\r\n\r\n",
        b"\n \t\n" + GOOD + b"\r\n",
        b"  " + GOOD + b"  \n",
    ],
)
def test_marks_and_line_ends_of_other_systems_are_taken(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(data)
    assert conversations(path) == [[user()]]


def test_a_mark_inside_the_file_is_no_beginning(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD + b"\n" + codecs.BOM_UTF8 + GOOD)
    with pytest.raises(JobError, match="line 2"):
        conversations(path)


def test_contents_are_kept_but_for_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(line(user("a\r\nb\x00\x1b\tc 日本語 🙂\u2028d ")))
    assert conversations(path) == [[user("a\nb\tc 日本語 🙂\u2028d ")]]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device"),
        (lambda path: path.symlink_to(path.name), "levels of symbolic links"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text(GOOD.decode(), "utf-16"), "UTF-16"),
    ],
)
def test_what_is_no_file_of_text_is_named(tmp_path: Path, make, reason: str) -> None:
    path = tmp_path / "set.jsonl"
    make(path)
    with pytest.raises(JobError, match=reason) as caught:
        conversations(path)
    assert str(path) in caught.value.report.detail
    assert caught.value.report.title == "The calibration file cannot be read"


def test_a_name_that_no_file_can_have_is_named() -> None:
    with pytest.raises(JobError, match="no name of a file"):
        conversations(Path("a\0b"))


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    if os.geteuid() == 0:
        # Root may read everything.
        monkeypatch.setattr(textfile.os, "open", refuse)
    with pytest.raises(JobError, match="Permission"):
        conversations(path)


def test_a_disk_that_fails_while_it_is_read_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Examples, "_read", fail)
    with pytest.raises(JobError, match="Input/output error"):
        conversations(path)


def test_blank_lines_alone_are_no_examples(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\n \n\r\n")
    with pytest.raises(JobError, match=r"no examples: set\.jsonl is blank"):
        conversations(path)


def test_a_line_that_is_too_long_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD + b"\n" + b"x" * 10_000)
    monkeypatch.setattr(examples, "LONGEST_LINE", 4096)
    with pytest.raises(JobError, match=r"line 2 of set\.jsonl: it is longer than"):
        conversations(path)


def test_lines_that_differ_in_nothing_that_is_read_count_once(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    again = b'{ "messages" : [ { "content" : "\\u0078", "role" : "user" } ] }'
    path.write_bytes(b"\n".join([GOOD, again, line({"role": "user", "content": "y"}), GOOD]))
    with path.open("rb") as file:
        found = Examples(file, path)
        found.check(QUIET)
        assert (len(found), found.duplicates) == (2, 2)
        assert [example.number for example in found.taken(2)] == [1, 3]


def test_a_file_that_changes_while_it_is_used_is_no_surprise(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(GOOD + b"\n" + line(user("y")))
    with path.open("rb") as file:
        found = Examples(file, path)
        found.check(QUIET)
        path.write_bytes(b"!" * 20)
        with pytest.raises(JobError, match=r"line 1 .*not JSON"):
            list(found.taken(2))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    words = "river " * 400
    with path.open("wb") as file:
        file.writelines(line(user(f"{number} {words}")) + b"\n" for number in range(6000))
    with path.open("rb") as file:
        found = Examples(file, path)
        tracemalloc.start()
        found.check(QUIET)
        taken = sum(1 for _ in found.taken(100))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (len(found), taken) == (6000, 100)
    assert peak < path.stat().st_size / 10
