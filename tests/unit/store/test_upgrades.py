"""Files that older programs wrote, as those programs wrote them, and one of a program to come."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from quantchat.domain.chat import SCHEMA, Session
from quantchat.errors import SessionNewer
from quantchat.store.journal import replay
from quantchat.store.locks import SessionLocks
from quantchat.store.recovery import recover
from quantchat.store.schema import decode_readable, decode_session, decode_summary
from quantchat.store.sessions import SessionStore

FILES = Path(__file__).parents[2] / "data" / "sessions"
VERSIONS = range(1, SCHEMA + 1)
THOUGHT = "The user asks about the order of columns."
SAID = "It quantizes columns in the order of their activation — 列の順番 — and needs a g_idx."


def put(store: SessionStore, name: str) -> str:
    """Lay a file, and its journal, into the folder under the id that it has."""
    session_id = str(json.loads((FILES / f"{name}.json").read_bytes())["id"])
    store.root.mkdir(parents=True, exist_ok=True)
    shutil.copy(FILES / f"{name}.json", store.path(session_id))
    shutil.copy(FILES / f"{name}.journal", store.journal_path(session_id))
    return session_id


def check(session: Session) -> None:
    """What every version of the file holds."""
    first, *_, last = session.branch()
    assert [message.role for message in session.branch()] == ["user", "assistant", "user", "assistant"]
    assert (first.text, last.text, last.finish) == ("What does desc_act change?", "Cut in the mid", "interrupted")
    long, short = session.siblings(session.branch()[1].id)
    assert (long.thinking, long.text, long.finish) == (THOUGHT, SAID, "stop")
    assert (short.finish, short.text) == ("length", "Speed, on kernels that do not reorder.")
    assert long.run is not None
    assert long.run.sampling is not None
    assert (long.run.kernel, long.run.sampling.seed) == ("gptq_torch_aten", 11)
    assert long.statistics is not None
    assert long.statistics.new_tokens == 12
    mine = next(message for message in session.messages.values() if "own words" in message.text)
    assert mine.text == "And <think> in my own words?\n\n```python\nprint('👩‍🚀')\n```"
    failed = next(message for message in session.messages.values() if message.error)
    assert failed.error is not None
    assert (failed.error.code, failed.parent) == ("out-of-memory", mine.id)
    assert (session.system_prompt, session.draft, session.queued) == (
        "Answer briefly.",
        "half a thou",
        ["A prompt that waited"],
    )
    assert (session.sampling.temperature, session.sampling.max_new_tokens) == (0.2, 64)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_read_whole(version: int) -> None:
    data = (FILES / f"schema{version}.json").read_bytes()
    session = decode_session(data)
    assert json.loads(data)["version"] == version
    assert session.version == SCHEMA
    check(session)
    assert session.title == ("What does desc_act change?" if version == 1 else "Act-order, for the talk")
    assert session.named_by == ("rule" if version == 1 else "user")
    summary = decode_summary(session.id, data)
    assert (summary.title, summary.messages) == (session.title, len(session.messages))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_file_is_written_as_the_newest_and_reads_the_same(store: SessionStore, version: int) -> None:
    session_id = put(store, f"schema{version}")
    session = store.load(session_id)
    store.save(session)
    assert json.loads(store.path(session_id).read_bytes())["version"] == SCHEMA
    assert store.load(session_id) == session
    check(session)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_journal_of_every_version_comes_back(store: SessionStore, locks: SessionLocks, version: int) -> None:
    session_id = put(store, f"schema{version}")
    (recovered,) = recover(store, locks)
    session = store.load(session_id)
    answer = session.messages[recovered.message_id]
    assert (answer.thinking, answer.text, answer.finish) == ("It sorts.", "By col", "interrupted")
    assert answer.parent == session.siblings(answer.id)[0].parent
    session.head = session.siblings(answer.id)[0].id
    check(session)
    assert not store.journal_path(session_id).exists()


def test_the_newest_schema_has_its_own_fields() -> None:
    session = decode_session((FILES / "schema3.json").read_bytes())
    assert (session.tags, session.pinned, session.preset) == (["kernels", "gpu box"], True, "precise")
    assert session.origin is not None
    (deleted,) = session.deleted
    assert [message.text for message in deleted.messages.values()] == ["Deleted on purpose"]


def test_what_is_known_of_a_newer_file_is_shown(store: SessionStore) -> None:
    session = store.load(put(store, "newer"))
    assert session.version == 9
    assert session.title == "Act-order, for the talk"
    assert (session.pinned, session.tags) == (True, [])
    first, long, *_ = session.messages.values()
    assert first.text == "What does desc_act change?"
    assert (long.text, long.thinking, long.finish) == (SAID, THOUGHT, None)
    assert session.branch()[-1].text == "Cut in the mid"
    (row,) = store.list()
    assert (row.title, row.id) == (session.title, session.id)
    assert store.take_problems() == []


def test_a_newer_file_is_never_written(store: SessionStore, locks: SessionLocks) -> None:
    session_id = put(store, "newer")
    before = {path.name: path.read_bytes() for path in store.root.iterdir()}
    assert recover(store, locks) == []
    session = store.load(session_id)
    with pytest.raises(SessionNewer):
        store.save(session)
    with pytest.raises(SessionNewer):
        store.rename(session_id, "Mine now")
    assert {path.name: path.read_bytes() for path in store.root.iterdir()} == before
    assert replay(store.journal_path(session_id))[0].text == "By col"


@pytest.mark.parametrize("cut", range(7))
def test_a_newer_file_never_ends_the_program(cut: int) -> None:
    """Whatever becomes of single fields, a title or a message is enough."""
    content = json.loads((FILES / "newer.json").read_bytes())
    names = list(content)
    for name in names[cut::7]:
        if name not in ("version", "title"):
            content[name] = [{"moved": True}]
    session = decode_readable(json.dumps(content).encode())
    assert session.title == "Act-order, for the talk"
    assert session.branch() == [] or session.head in session.messages
