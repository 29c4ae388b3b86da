"""A plain history of messages: every form that is read, what is refused, and that nothing of others is ever lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.chat import ChatMessage
from quantchat.errors import QuantchatError, StorageError, UsageError
from quantchat.services.history import History, HistoryFile, parse_history, read_history

TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi\u2028there"},
    {"role": "assistant", "content": "Hello"},
]
PLAIN = (ChatMessage("system", "Be short."), ChatMessage("user", "Hi\u2028there"), ChatMessage("assistant", "Hello"))


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


FORMS = {
    "list": json.dumps(TALK, indent=2, ensure_ascii=False) + "\n",
    "lines": lines(TALK),
    "object": json.dumps({"model": "x", "messages": TALK, "seed": 7}, indent=2, ensure_ascii=False) + "\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_and_written_as_it_was(form: str) -> None:
    history = parse_history(FORMS[form].encode(), "f")
    assert history.messages == PLAIN
    if form == "object":
        assert json.loads(history.encode()) == json.loads(FORMS[form])
    else:
        assert history.encode().decode() == FORMS[form]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (b"", "list"),
        (b" \n\n", "list"),
        (b"[]", "list"),
        (b'\xef\xbb\xbf[{"role": "user", "content": "a"}]', "list"),
        (b'{"role": "user",\r\n "content": "a"}', "lines"),
        (b'{"role": "user", "content": "a"}\r\n\r\n{"role": "assistant", "content": "b"}\r\n', "lines"),
        (b'{"messages": [{"role": "human", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]}', "object"),
    ],
)
def test_odd_files_that_are_histories_all_the_same(text: bytes, form: str) -> None:
    assert parse_history(text, "f").form == form


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"hello", "JSON is malformed"),
        (b'[{"role": "user", "content": "a"}', "truncated"),
        (b'"text"', "no list of messages"),
        (b"[1]", "message 1 is no object"),
        (b'[{"role": "tool", "content": "a"}]', "message 1 has the role 'tool'"),
        (b'[{"role": "user", "content": "a"}, {"role": "user"}]', "content of message 2 is no text"),
        (b'[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]', "content of message 1 is no text"),
        (b'{"role": "user", "content": "a"}\n{"role": "user", "cont', "line 2"),
        (b'{"messages": []}\n{"messages": []}', "several conversations"),
        (b'{"title": "x"}', "role 'None'"),
        (b"\xff\xfe[]", "utf-8"),
        (b"[" * 100_000, ""),
    ],
)
def test_what_is_no_history_is_refused_with_the_reason_and_stays(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "h.json"
    path.write_bytes(text)
    for read in (HistoryFile, read_history):
        with pytest.raises(StorageError) as refused:
            read(path)
        assert refused.value.report.code == "history-unreadable"
        assert reason in str(refused.value)
    assert path.read_bytes() == text


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text())), st.sampled_from(list(FORMS)))
def test_what_was_said_comes_back(said: list[tuple[str, str]], form: str) -> None:
    history = parse_history(FORMS[form].encode(), "f")
    for role, content in said:
        history.add(role, content)  # type: ignore[arg-type]
    again = parse_history(history.encode(), "f")
    assert again.messages == history.messages
    assert again.form == form


def test_a_lone_surrogate_does_not_keep_a_history_from_being_saved() -> None:
    history = History()
    history.add("user", "a\udc80b")
    assert parse_history(history.encode(), "f").messages == (ChatMessage("user", "a?b"),)


def test_what_else_stands_in_messages_stays() -> None:
    rows = [{"role": "developer", "content": "x", "name": "me"}, {"role": "ai", "content": "y", "when": [1, None]}]
    history = parse_history(json.dumps(rows).encode(), "f")
    history.add("user", "z")
    assert json.loads(history.encode()) == [*rows, {"role": "user", "content": "z"}]
    assert [message.role for message in history.messages] == ["system", "assistant", "user"]


def test_a_system_prompt_is_put_in_replaced_and_taken_out() -> None:
    history = History([{"role": "user", "content": "a"}])
    history.set_system("one")
    history.set_system("two")
    assert history.messages == (ChatMessage("system", "two"), ChatMessage("user", "a"))
    history.set_system("")
    assert history.messages == (ChatMessage("user", "a"),)


def test_only_a_question_at_the_end_is_open() -> None:
    history = History()
    assert history.open_question is None
    history.add("user", "a")
    assert history.open_question == "a"
    history.add("assistant", "b")
    assert history.open_question is None


def test_a_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    file = HistoryFile(path)
    history = file.read()
    history.add("user", "a")
    file.save(history)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["h.json"]
    history.add("assistant", "b")
    file.save(history)
    assert [row["content"] for row in json.loads(path.read_text())] == ["a", "b"]
    assert not file.moved


@pytest.mark.parametrize("name", ["h.json", "h.jsonl"])
def test_a_new_file_has_the_form_of_its_name(tmp_path: Path, name: str) -> None:
    file = HistoryFile(tmp_path / name)
    history = file.new(parse_history(FORMS["object"].encode(), "f"))
    file.save(history)
    assert (tmp_path / name).read_text() == FORMS["lines" if name.endswith("l") else "list"]


@pytest.mark.parametrize("other", [b"somebody else's", None])
def test_a_file_that_somebody_changed_is_not_replaced(tmp_path: Path, other: bytes | None) -> None:
    path = tmp_path / "h.json"
    path.write_text(FORMS["list"])
    file = HistoryFile(path)
    history = file.read()
    history.add("user", "mine")
    if other is None:
        path.unlink()
    else:
        path.write_bytes(other)
    file.save(history)
    assert file.moved
    assert (path.read_bytes() if path.exists() else None) == other
    assert read_history(file.path).messages[-1].content == "mine"
    history.add("assistant", "more")
    beside = file.path
    file.save(history)
    assert file.path == beside
    assert read_history(beside).messages[-1].content == "more"


def test_a_disk_that_refuses_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "h.json"
    path.write_text(FORMS["list"])
    file = HistoryFile(path)
    path.write_text("somebody else's")
    with monkeypatch.context() as refused:
        refused.setattr("quantchat.store.atomic.os.fsync", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        for _ in range(2):
            with pytest.raises(StorageError):
                file.save(file.read())
            assert (file.path, file.moved) == (path, False)
    file.save(file.read())
    assert file.moved
    assert {path, file.path} == set(tmp_path.iterdir())


def test_a_link_into_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("none/h.json")
    with pytest.raises(UsageError):
        HistoryFile(tmp_path / "link.json")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(FORMS["list"])
    (tmp_path / "link.json").symlink_to("real.json")
    file = HistoryFile(tmp_path / "link.json")
    history = file.read()
    history.add("user", "new")
    file.save(history)
    assert (tmp_path / "link.json").is_symlink()
    assert read_history(tmp_path / "real.json").messages[-1].content == "new"


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "folder", tmp_path / "pipe", tmp_path / "none" / "h.json", Path("/dev/null")):
        with pytest.raises(UsageError):
            HistoryFile(path)
    with pytest.raises(QuantchatError):
        HistoryFile(tmp_path / "folder" / "x" / "h.json")
