from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat import paths
from quantchat.domain.chat import SCHEMA, Message, RunCard, Session, new_id
from quantchat.domain.generation import SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.errors import ErrorReport, SessionNewer, SessionUnreadable, StorageError
from quantchat.store.schema import UPGRADES, NewerSchema, decode_session, encode_session
from quantchat.store.sessions import SessionStore

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
moments = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
ids = moments.map(new_id)
overrides = st.builds(
    SamplingOverrides,
    temperature=st.none() | st.floats(0, 10),
    top_k=st.none() | st.integers(0, 2**40),
    seed=st.none() | st.integers(0, 2**62 - 1),
    min_p=st.none() | st.floats(0, 1),
    no_repeat_ngram=st.none() | st.integers(0, 9),
    logit_bias=st.none() | st.dictionaries(texts.filter(bool), st.floats(-100, 100), max_size=3),
    stop=st.none() | st.lists(texts, max_size=3).map(tuple),
)
messages = st.builds(
    Message,
    id=ids,
    role=st.sampled_from(["system", "user", "assistant"]),
    text=texts,
    created=moments,
    parent=st.none() | ids,
    finish=st.none() | st.sampled_from(["stop", "length", "stopped", "context", "error", "interrupted"]),
    error=st.none() | st.builds(ErrorReport, code=texts, title=texts, detail=texts, remedy=texts),
    run=st.none() | st.builds(RunCard, model=texts, kernel=texts, sampling=st.none() | st.just(SamplingSettings())),
    statistics=st.none()
    | st.builds(TurnStatistics, new_tokens=st.integers(0, 10**6), decode_seconds=st.floats(0, 1e6)),
)
sessions = st.builds(
    Session,
    id=ids,
    title=texts,
    created=moments,
    updated=moments,
    messages=st.lists(messages, max_size=4).map(lambda many: {one.id: one for one in many}),
    head=st.none() | ids,
    system_prompt=texts,
    model=st.none() | texts,
    sampling=overrides,
    queued=st.lists(texts, max_size=2),
    draft=texts,
)


def talk(store: SessionStore, prompt: str = "What is act-order?") -> Session:
    session = store.create()
    session.append("user", prompt)
    store.save(session)
    return session


@given(session=sessions)
def test_a_session_comes_back_from_its_file_as_it_was(session: Session) -> None:
    assert decode_session(encode_session(session)) == session


@given(session=sessions, cut=st.floats(0.01, 0.99))
def test_no_cut_file_is_taken_for_a_session(session: Session, cut: float) -> None:
    data = encode_session(session).rstrip()
    with pytest.raises(msgspec.DecodeError):
        decode_session(data[: max(1, int(len(data) * cut))])


def test_save_and_load(store: SessionStore, home: Path) -> None:
    session = talk(store)
    path = home / "data" / "sessions" / f"{session.id}.json"
    assert path == store.path(session.id)
    assert store.load(session.id) == session
    assert json.loads(path.read_text())["version"] == SCHEMA
    assert '\n  "title"' in path.read_text()


def test_an_empty_session_has_no_file(store: SessionStore) -> None:
    session = store.create()
    store.save(session)
    assert not store.root.exists()
    session.draft = "half a thou"
    store.save(session)
    session.draft = ""
    store.save(session)
    assert store.load(session.id).draft == ""


def test_a_lone_surrogate_does_not_cost_the_session(store: SessionStore) -> None:
    session = talk(store, "cut \ud83d emoji")
    (message,) = store.load(session.id).messages.values()
    assert message.text == "cut ? emoji"


def test_what_could_not_be_read_back_is_not_written(store: SessionStore) -> None:
    session = talk(store)
    before = store.path(session.id).read_bytes()
    session.sampling = SamplingOverrides(temperature=99.0)
    with pytest.raises(StorageError, match="could not be read back"):
        store.save(session)
    assert store.path(session.id).read_bytes() == before


@pytest.mark.parametrize(
    "bad", ["../../etc/passwd", "", "x", "20261121T035912123-a1b2c3/../x", "20261121T035912123-a1b2c3\n", "٢" * 26]
)
def test_ids_cannot_leave_the_folder(store: SessionStore, bad: str) -> None:
    for action in (store.load, store.delete, store.path, store.journal_path):
        with pytest.raises(StorageError) as caught:
            action(bad)
        assert caught.value.report.code == "session-missing"


def test_a_missing_session_is_named(store: SessionStore) -> None:
    missing = new_id()
    for action in (store.load, store.delete):
        with pytest.raises(StorageError, match=missing):
            action(missing)


def test_a_file_cut_in_half_is_quarantined_and_named(store: SessionStore) -> None:
    session, sound = talk(store), talk(store)
    path = store.path(session.id)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    with pytest.raises(SessionUnreadable) as caught:
        store.load(session.id)
    (kept,) = paths.quarantine_dir().iterdir()
    assert kept.read_bytes() == half
    assert path.name in str(caught.value)
    assert str(kept) in str(caught.value)
    assert not path.exists()
    assert [row.id for row in store.list()] == [sound.id]


def test_the_list_survives_unreadable_files_and_reports_each_once(store: SessionStore) -> None:
    sound = talk(store)
    broken = [new_id() for _ in range(4)]
    for session_id, content in zip(broken, (b"", b"[1, 2]", b'{"title": "\xff"}', b'{"a":' + b"[" * 9999), strict=True):
        store.path(session_id).write_bytes(content)
    assert [row.id for row in store.list()] == [sound.id]
    problems = store.take_problems()
    assert len(problems) == 4
    assert all(any(session_id in problem.detail for problem in problems) for session_id in broken)
    assert len(list(store.quarantine.iterdir())) == 4
    store.list()
    assert store.take_problems() == []


def test_quarantine_keeps_both_of_two_bad_files_of_one_name(store: SessionStore) -> None:
    session = talk(store)
    for content in (b"{1", b"{2"):
        store.path(session.id).write_bytes(content)
        with pytest.raises(SessionUnreadable):
            store.load(session.id)
    assert sorted(path.read_bytes() for path in store.quarantine.iterdir()) == [b"{1", b"{2"]


@pytest.mark.parametrize("body", [{}, {"title": ["moved"], "updated": {"at": 1}, "messages": []}])
def test_a_newer_schema_of_which_nothing_is_known_is_refused_and_left_alone(
    store: SessionStore, body: dict[str, Any]
) -> None:
    session = talk(store)
    path = store.path(session.id)
    path.write_text(json.dumps(body | {"version": SCHEMA + 1}))
    before = path.read_bytes()
    with pytest.raises(SessionNewer, match="Upgrade quantchat") as caught:
        store.load(session.id)
    assert caught.value.report.code == "session-newer"
    assert store.list() == []
    assert store.list() == []
    assert [problem.code for problem in store.take_problems()] == ["session-newer"]
    assert path.read_bytes() == before


def test_upgrades_run_in_order_and_only_those_needed() -> None:
    ran: list[int] = []

    def step(version: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def run(content: dict[str, Any]) -> dict[str, Any]:
            ran.append(version)
            return {**content, "title": content["title"].removesuffix(f"→{version}") + f"→{version}"}

        return run

    session = Session.new()
    session.title = "old"
    upgrades = {version: step(version) for version in (1, 2, 3)}
    for start, title in ((1, "old→1→2→3"), (3, "old→3"), (4, "old")):
        data = encode_session(session).replace(b'"version": %d' % SCHEMA, b'"version": %d' % start)
        upgraded = decode_session(data, schema=4, upgrades=upgrades)
        assert upgraded.title == title
    assert upgraded.version == 4
    assert ran == [1, 2, 3, 3]
    with pytest.raises(NewerSchema):
        decode_session(data, schema=3, upgrades=upgrades)


def test_an_upgrade_that_does_not_find_its_fields_makes_the_file_unreadable() -> None:
    data = encode_session(Session.new())
    with pytest.raises(msgspec.ValidationError, match="could not be upgraded"):
        decode_session(data, schema=SCHEMA + 1, upgrades={SCHEMA: lambda content: {"title": content["name"]}})


def stored(text: str, role: str = "assistant") -> dict[str, Any]:
    """A file of schema 1, which kept thinking inside the text."""
    moment = "2026-01-01T00:00:00Z"
    message = {"id": "m", "role": role, "text": text, "created": moment}
    return {"version": 1, "id": "x", "created": moment, "updated": moment, "messages": {"m": message}, "head": "m"}


def test_thinking_leaves_the_text_of_files_of_the_first_schema() -> None:
    old = stored("<think>\nIt sorts.\n</think>\n\nBy column.")
    message = decode_session(json.dumps(old).encode()).messages["m"]
    assert (message.thinking, message.text) == ("It sorts.", "By column.")
    mine = decode_session(json.dumps(stored("<think> is a tag", "user")).encode()).messages["m"]
    assert (mine.thinking, mine.text) == ("", "<think> is a tag")


@pytest.mark.parametrize(
    "text", ["plain", "<think>a</think>b", "<think></think>b", "<think>open", "a\n</think>\nb\n</think>\nc"]
)
def test_the_upgrade_of_thinking_changes_its_own_output_no_more(text: str) -> None:
    once = UPGRADES[1](stored(text))
    assert UPGRADES[1](once) == once


def test_thinking_survives_saving(store: SessionStore) -> None:
    session = talk(store)
    session.append("assistant", "By column.").thinking = "It sorts."
    store.save(session)
    assert store.load(session.id) == session
    assert json.loads(store.path(session.id).read_text())["version"] == SCHEMA > 1, "an older program would drop it"


def test_a_file_without_a_version_is_of_the_first_schema() -> None:
    data = json.dumps({"id": "x", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}).encode()
    assert decode_session(data, schema=2, upgrades={1: lambda c: c | {"title": "up"}}).title == "up"
    with pytest.raises(msgspec.ValidationError):
        decode_session(b'{"version": 0}')


def test_the_list_is_newest_first(store: SessionStore) -> None:
    made = [talk(store, f"prompt {number}") for number in range(4)]
    made[1].updated += timedelta(hours=1)
    store.save(made[1])
    rows = store.list()
    assert [row.id for row in rows] == [made[i].id for i in (1, 3, 2, 0)]
    assert (rows[0].title, rows[0].messages) == ("prompt 1", 1)


def test_the_list_passes_over_foreign_files(store: SessionStore) -> None:
    session = talk(store)
    (store.root / "notes.json").write_text("{")
    (store.root / ".hidden.tmp").write_text("{")
    assert [row.id for row in store.list()] == [session.id]
    assert (store.root / "notes.json").exists()


def test_a_copied_file_is_a_session_of_its_own(store: SessionStore) -> None:
    session, copy = talk(store), new_id()
    store.path(copy).write_bytes(store.path(session.id).read_bytes())
    assert store.load(copy).id == copy
    assert {row.id for row in store.list()} == {session.id, copy}


def test_delete_moves_to_the_trash(store: SessionStore, home: Path) -> None:
    session = talk(store)
    content = store.path(session.id).read_bytes()
    store.journal_path(session.id).write_bytes(b"{}\n")
    store.delete(session.id)
    assert store.list() == []
    trash = home / "data" / "trash"
    assert (trash / f"{session.id}.json").read_bytes() == content
    assert (trash / f"{session.id}.journal").exists()
    assert os.listdir(store.root) == []


def test_rename_keeps_the_place_in_the_list(store: SessionStore) -> None:
    first, second = talk(store), talk(store)
    store.rename(first.id, "  Marlin \n kernels ")
    assert [(row.id, row.title) for row in store.list()] == [(second.id, second.title), (first.id, "Marlin kernels")]


def test_a_full_disk_loses_nothing(
    small_disk: Path, fill_disk: Callable[[Path], Path], leftovers: Callable[[Path], list[str]]
) -> None:
    store = SessionStore(small_disk / "sessions")
    session = talk(store)
    before = store.path(session.id).read_bytes()
    ballast = fill_disk(small_disk)
    session.append("assistant", "It sorts columns. " * 200)
    with pytest.raises(StorageError, match="The disk is full"):
        store.save(session)
    assert store.path(session.id).read_bytes() == before
    assert leftovers(store.root) == []
    assert [row.id for row in store.list()] == [session.id]
    ballast.unlink()
    store.save(session)
    assert store.load(session.id) == session


def test_a_folder_that_cannot_be_read_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SessionStore(tmp_path / "file")
    assert store.list() == []
    assert [problem.code for problem in store.take_problems()] == ["storage"]
