"""Temporary sessions: everything works in them, nothing of them is ever on the disk, and they can be kept after all."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.domain.chat import Origin
from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import SessionLocked
from quantchat.services.archive import Archive
from quantchat.services.branches import Branches
from quantchat.store.journal import replay
from quantchat.store.schema import decode_session
from unit.services.turn_bench import Bench, asked


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    return Bench()


def written(home: Path) -> list[str]:
    """Everything below the home that is no folder."""
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir())


async def test_nothing_of_a_temporary_session_is_written(bench: Bench, tmp_path: Path) -> None:
    await bench.load()
    session = bench.archive.new(temporary=True)
    _, turn = bench.ask("a secret", session)
    bench.speak(turn, "some", " words")
    bench.finish(turn.turn)
    bench.archive.rename(session.id, "Hidden")
    bench.archive.configure(session.id, system_prompt="Whisper.", sampling=SamplingOverrides(seed=1))
    bench.conversation.regenerate(session.id)
    bench.conversation.stop(session.id)
    bench.finish(bench.engine.turns()[-1].turn, "stopped")
    session.draft = "more"
    bench.archive.save(session)
    await bench.archive.flush()
    assert session.branch()[1].text == ""
    assert len(session.messages) == 3
    assert written(tmp_path / "home") == []
    await bench.archive.delete(session.id)
    await bench.archive.close()
    assert written(tmp_path / "home") == []


async def test_its_tree_is_changed_and_forked_without_a_trace(bench: Bench, tmp_path: Path) -> None:
    await bench.load()
    branches = Branches(bench.archive, bench.conversation, bench.facts.append)
    session, turn = bench.ask("a secret", bench.archive.new(temporary=True))
    bench.speak(turn, "said")
    bench.finish(turn.turn)
    question, answer = session.branch()
    branches.edit(session.id, question.id, "another")
    bench.finish(bench.engine.turns()[-1].turn)
    branches.delete(session.id, question.id)
    branches.undo(session.id)
    fork = branches.fork(session.id, answer.id)
    await bench.archive.amend(fork.id, lambda changed: changed.tags.append("mine"))
    bench.ask("in the fork", fork)
    bench.finish(bench.engine.turns()[-1].turn)
    await bench.archive.flush()
    assert fork.tags == ["mine"]
    assert len(fork.messages) == 4
    assert bench.archive.is_temporary(fork.id)
    bench.conversation.keep(fork.id)
    await bench.archive.close()
    assert {path.stem for path in (tmp_path / "home" / "data" / "sessions").glob("*.json")} == {fork.id}


async def test_it_stands_in_the_list_as_what_it_is(bench: Bench) -> None:
    kept, turn = await asked(bench)
    bench.finish(turn.turn)
    temporary, _ = bench.ask("me too", bench.archive.new(temporary=True))
    draft, _empty = bench.archive.new(temporary=True), bench.archive.new(temporary=True)
    draft.draft = "half a question"
    rows = {row.id: row.temporary for row in await bench.archive.summaries()}
    assert rows == {kept.id: False, temporary.id: True, draft.id: True}
    await bench.archive.close()
    bench.conversation.finish_now()


async def test_a_fork_of_a_temporary_session_is_temporary_too(bench: Bench) -> None:
    source = bench.archive.new(temporary=True)
    fork = Archive.new(bench.archive)
    fork.origin = Origin(session=source.id)
    bench.archive.adopt(fork)
    assert bench.archive.is_temporary(fork.id)
    other = bench.archive.new()
    assert not bench.archive.is_temporary(bench.archive.adopt(other).id)
    await bench.archive.close()


async def test_one_that_is_kept_is_written_with_all_that_was_said(bench: Bench, tmp_path: Path) -> None:
    await bench.load()
    session, turn = bench.ask("a secret", bench.archive.new(temporary=True))
    bench.speak(turn, "some")
    bench.finish(turn.turn)
    bench.conversation.keep(session.id)
    await bench.archive.flush()
    file = tmp_path / "home" / "data" / "sessions" / f"{session.id}.json"
    assert [message.text for message in decode_session(file.read_bytes()).branch()] == ["a secret", "some"]
    other = Archive(lambda _fact: None)
    other.open(session.id)
    assert isinstance(other.why_read_only(session.id), SessionLocked)
    await other.close()
    await bench.archive.close()


async def test_an_answer_that_streams_is_journaled_from_when_it_is_kept(bench: Bench, tmp_path: Path) -> None:
    await bench.load()
    session, turn = bench.ask("a secret", bench.archive.new(temporary=True))
    bench.speak(turn, "one ", "two ")
    assert written(tmp_path / "home") == []
    bench.conversation.keep(session.id)
    bench.speak(turn, "three")
    journal = tmp_path / "home" / "data" / "sessions" / f"{session.id}.journal"
    await bench.until(lambda: journal.exists() and "three" in journal.read_text())
    assert [answer.text for answer in replay(journal)] == ["one two three"]
    bench.finish(turn.turn)
    await bench.archive.flush()
    assert not journal.exists()
    stored = decode_session(journal.with_suffix(".json").read_bytes())
    assert stored.branch()[-1].text == "one two three"
    await bench.archive.close()


async def test_a_disk_that_refuses_does_not_lose_what_is_kept(bench: Bench, tmp_path: Path) -> None:
    await bench.load()
    session, turn = bench.ask("a secret", bench.archive.new(temporary=True))
    bench.speak(turn, "said")
    bench.finish(turn.turn)
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "data").write_text("no folder")
    bench.conversation.keep(session.id)
    await bench.archive.flush()
    assert bench.archive.unsaved(session.id) is not None
    (tmp_path / "home" / "data").unlink()
    assert await bench.archive.close() == []
    (file,) = (tmp_path / "home").rglob("*.json")
    assert decode_session(file.read_bytes()).branch()[-1].text == "said"


# What new sessions begin with


async def test_a_new_session_has_the_system_prompt_of_the_settings_and_is_empty_all_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    bench.archive.store.assumed_prompt = "Be brief."
    session = bench.archive.new()
    assert session.system_prompt == "Be brief."
    assert bench.archive.is_bare(session)
    bench.archive.configure(session.id, sampling=SamplingOverrides(seed=1), preset="mine")
    bench.archive.save(session)
    await bench.archive.flush()
    assert not list((tmp_path / "home").rglob("*.json"))
    bench.archive.configure(session.id, system_prompt="Be long.")
    await bench.archive.flush()
    (file,) = (tmp_path / "home").rglob("*.json")
    assert decode_session(file.read_bytes()).system_prompt == "Be long."
    bench.archive.configure(session.id, system_prompt="")
    await bench.archive.flush()
    assert not file.exists()
    await bench.archive.close()


async def test_system_prompt_and_template_go_with_every_question(bench: Bench) -> None:
    session, turn = await asked(bench)
    assert (turn.template, [message.role for message in turn.messages]) == ("", ["user"])
    bench.archive.configure(session.id, system_prompt="Be brief.", template="{{ messages }}")
    bench.finish(turn.turn)
    _, turn = bench.ask("again", session)
    assert turn.template == "{{ messages }}"
    assert turn.messages[0].content == "Be brief."
    bench.finish(turn.turn)
    bench.archive.configure(session.id, system_prompt="", template="")
    _, turn = bench.ask("and again", session)
    assert (turn.template, turn.messages[0].role) == ("", "user")
    bench.finish(turn.turn)
    await bench.archive.close()
