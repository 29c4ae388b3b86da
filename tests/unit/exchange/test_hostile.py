"""Files that mean harm, or only came out wrong: named by line and cause, bounded in memory and time."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.errors import Cancelled, StorageError
from quantchat.store.exchange.progress import Progress
from quantchat.store.exchange.reading import Bad, Read, Reader
from quantchat.store.exchange.values import Broken, JsonValues, Value

SESSION: dict[str, Any] = {
    "version": 3,
    "id": "20200101T000000000-abcdef",
    "title": "Tides",
    "created": "2020-01-01T00:00:00Z",
    "updated": "2020-01-01T00:00:00Z",
    "messages": {
        "a": {"id": "a", "role": "user", "text": "Why?", "created": "2020-01-01T00:00:00Z"},
        "b": {"id": "b", "role": "assistant", "text": "So.", "created": "2020-01-01T00:00:00Z", "parent": "a"},
    },
    "head": "b",
}


def read(data: bytes | object) -> tuple[list[Read], list[Bad]]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    found = list(Reader().read(io.BytesIO(raw), "a file"))
    return [one for one in found if isinstance(one, Read)], [one for one in found if isinstance(one, Bad)]


def with_message(name: str, **fields: object) -> dict[str, Any]:
    messages = {**SESSION["messages"], name: {**SESSION["messages"].get(name, SESSION["messages"]["a"]), **fields}}
    return {**SESSION, "messages": messages}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (with_message("b", parent="gone"), "message 'b' follows 'gone', which is not there"),
        (with_message("a", parent="b"), "message 'a' follows itself"),
        (with_message("a", parent="a"), "message 'a' follows itself"),
        (with_message("b", id="a"), "message 'b' calls itself 'a'"),
        (with_message("b", text=5), "Expected `str`, got `int` - at `$.messages[...].text`"),
        (with_message("b", role="robot"), "Invalid enum value 'robot'"),
        (with_message("b", created="soon"), "Invalid RFC3339 encoded datetime"),
        ({**SESSION, "version": 99}, "a later quantchat wrote it (schema 99"),
        ({**SESSION, "version": 0}, "there is no schema 0"),
        ({**SESSION, "version": "x"}, "there is no schema x"),
        ({**SESSION, "version": 1, "messages": {"a": "text"}}, "schema 1 could not be upgraded"),
        ({**SESSION, "messages": 5}, "got `int`"),
        ([5], "a conversation should stand here, and not a number"),
        (["text"], "and not a text"),
        ([None], "and not nothing"),
        ([{}], "neither messages nor a mapping"),
        ([], "holds no conversations"),
        ({"messages": []}, "holds no messages"),
        ({"messages": ["hello"]}, "message 1 is no object"),
        ([[{"role": "user"}]], "holds no messages"),
        ([{"role": "user", "content": "x"}, {"role": "robot", "content": "x"}], "message 2 has the role 'robot'"),
        ([{"role": ["user"], "content": "x"}], "has the role"),
        ([{"role": "user", "content": {"text": "x"}}], "neither text nor a list"),
        ([{"role": "user", "content": "x"}, 7], "and not a number"),
    ],
)
def test_what_is_wrong_is_named(content: object, cause: str) -> None:
    _, bad = read(content)
    assert any(cause in one.cause for one in bad), bad


@pytest.mark.parametrize(
    ("data", "line", "cause"),
    [
        (b'{"messages": [{"role": "user", "content": "x"}]}\n{"messages": [}\n', 2, "no JSON at column 15"),
        (b'\n\n[{"role": "user",\n"content": "x" "y"}]', 4, "no JSON at column 16"),
        (b'[{"role": "user", "content": "x"}\n{"role": "user"}]', 2, "a comma is missing"),
        (b'[{"role": "user", "content": "x"}', 1, "ends in the middle of a list"),
        (b'[\n{"role": "user", "content": "x', 2, "ends in the middle of a value"),
        (b'{"a": 1, "a": 2}', 1, "the key 'a' stands twice"),
        (b'[{"role": "user", "content": NaN}]', 1, "NaN is no number of JSON"),
        (b'[{"role": "user", "content": ' + b"9" * 5000 + b"}]", 1, "Exceeds the limit"),
        (b'[{"role": "user",\n"content": "\xff"}]', 1, "not UTF-8"),
        (b"[" * 100_000, 1, "nested too deeply"),
        (b'{"a":' * 100_000, 1, "nested too deeply"),
    ],
)
def test_malformed_files_name_line_and_cause(data: bytes, line: int, cause: str) -> None:
    _, bad = read(data)
    assert any(one.line == line and cause in one.cause for one in bad), bad


def test_lines_behind_a_bad_one_are_read() -> None:
    good = b'{"messages": [{"role": "user", "content": "x"}]}\n'
    found, bad = read(good + b'{"messages": [\n' + good + b"\n" + b'{"messages": 5}\n' + good)
    assert len(found) == 3
    assert [one.line for one in bad] == [2, 5]


def test_a_damaged_file_that_is_no_jsonl_gives_one_error() -> None:
    data = json.dumps(SESSION, indent=2).replace('"role"', "role").encode()
    assert len(read(data)[1]) == 1


@pytest.mark.parametrize(
    ("data", "cause"),
    [(b"", "it is empty"), (b"hello", "of no kind"), (b"\x7fELF", "of no kind"), ('["a"]'.encode("utf-16"), "UTF-16")],
)
def test_files_of_other_kinds_are_refused(data: bytes, cause: str) -> None:
    with pytest.raises(StorageError, match=cause) as error:
        read(data)
    assert "ChatGPT" in error.value.report.remedy


@pytest.mark.parametrize(
    "marks",
    [
        "<!-- quantchat:message {} -->\nx",
        '<!-- quantchat:session -->\n<!-- quantchat:message {"role": 5} -->\nx',
        "<!-- quantchat:session -->\n<!-- quantchat:answer -->\nx",
        "<!-- quantchat:session -->\n<!-- quantchat:what -->\nx",
        "<!-- quantchat:session {bad} -->\n",
        "<!-- quantchat:session -->\n<!-- quantchat:message " + '{"a":' * 5000 + "} -->\n",
    ],
)
def test_damaged_marks_of_markdown_are_named(marks: str) -> None:
    found, bad = read(f"# Title\n{marks}".encode())
    assert not found
    assert bad[0].line in (1, 2, 3)


def test_control_characters_stay_data() -> None:
    found, bad = read([{"role": "user", "content": "\x1b]0;owned\x07 \u202eabc \ud800"}])
    assert not bad
    assert "\x1b]0;owned\x07" in found[0].session.branch()[0].text


def test_tools_and_pictures_are_counted_and_other_names_of_roles_known() -> None:
    reader = Reader()
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    history = [
        {"role": "developer", "content": "Be brief"},
        {"role": "human", "content": [{"type": "text", "text": "Look: "}, picture, "and say"]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
        {"role": "tool", "content": "42"},
        {"role": "ai", "content": "It is 42.", "reasoning_content": "Hm."},
    ]
    (found,) = reader.read(io.BytesIO(json.dumps(history).encode()), "a file")
    assert isinstance(found, Read)
    session = found.session
    assert session.system_prompt == "Be brief"
    assert [(m.role, m.text, m.thinking) for m in session.branch()] == [
        ("user", "Look: and say", ""),
        ("assistant", "It is 42.", "Hm."),
    ]
    assert reader.left_out == {"pictures, sounds and files": 1, "calls of tools": 1, "messages of tools": 1}


# Bounds


class Endless:
    """A file that never ends, and counts what was asked of it."""

    def __init__(self, begin: bytes, again: bytes) -> None:
        self._begin, self._again = begin, again
        self.given = 0

    def read(self, size: int) -> bytes:
        data = self._begin or (self._again * (size // len(self._again) + 1))[:size]
        self._begin = b""
        self.given += len(data)
        return data


@pytest.mark.parametrize(("begin", "again"), [(b'["', b"a"), (b"[[", b"1,"), (b"[", b'"a"')])
def test_endless_values_are_given_up(begin: bytes, again: bytes) -> None:
    file = Endless(begin, again)
    *_, last = JsonValues(file.read, largest=1_000_000)
    assert isinstance(last, Broken)
    assert file.given < 5_000_000


def test_many_values_are_read_in_little_memory() -> None:
    import tracemalloc

    one = json.dumps({"messages": [{"role": "user", "content": "x" * 1000}]}).encode()

    class Many(io.RawIOBase):
        left = 20_000

        def read(self, size: int = -1) -> bytes:
            count = min(self.left, max(size // len(one), 1))
            self.left -= count
            return (one + b"\n") * count

    tracemalloc.start()
    try:
        count = sum(isinstance(value, Value) for value in JsonValues(Many().read))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000


def test_reading_stops_where_the_user_says_so() -> None:
    progress = Progress()
    endless = Endless(b"[", b'{"messages": [{"role": "user", "content": "x"}]},')
    found = Reader(progress).read(endless, "endless")  # type: ignore[arg-type]
    assert isinstance(next(found), Read)
    progress.cancel()
    with pytest.raises(Cancelled):
        for _ in found:
            pass


# Anything


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans()))), st.data())
def test_values_come_out_as_they_went_in_however_they_are_cut(values: list[Any], data: st.DataObject) -> None:
    space = st.text(st.sampled_from(" \n\t"), max_size=3)
    lines = data.draw(st.booleans())
    pieces = [json.dumps(value, indent=data.draw(st.sampled_from([None, 1]))) for value in values]
    text = "\n".join(pieces) if lines else f"[{(data.draw(space) + ',' + data.draw(space)).join(pieces)}]"
    raw, chance = text.encode(), random.Random(data.draw(st.integers(0, 99)))
    rest = io.BytesIO(raw)
    found = list(JsonValues(lambda _size: rest.read(chance.randint(1, 9))))
    assert [one.value for one in found if isinstance(one, Value)] == values
    assert len(found) == len(values)


def test_any_damage_leaves_a_session_whole_or_names_what_is_wrong() -> None:
    good = json.dumps([SESSION, {**SESSION, "title": "Two"}]).encode()
    chance = random.Random(6)
    for _ in range(600):
        data = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            action = chance.randrange(3)
            if action == 0:
                data[place] = chance.randrange(256)
            elif action == 1:
                del data[place : place + chance.randint(1, 40)]
            else:
                data[place:place] = chance.choice([b"{", b"]", b'"', b"null", b"1e999", b"\xc3", b'"a":'])
        try:
            found, bad = read(bytes(data))
        except StorageError:
            continue
        assert found or bad
        for one in found:
            assert len(one.session.branch()) <= len(one.session.messages)
