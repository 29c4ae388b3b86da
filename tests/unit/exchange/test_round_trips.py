"""What is exported and imported again is the same tree, in every format as far as it holds one."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantchat.domain.chat import UNTITLED, Deletion, Message, RunCard, Session
from quantchat.domain.text import plain
from quantchat.errors import UsageError
from quantchat.store.exchange.formats import FORMATS, Format, find_format, format_of
from quantchat.store.exchange.parts import EVERYTHING, PARTS
from quantchat.store.exchange.reading import Bad, Read, Reader
from quantchat.store.recovery import settle
from quantchat.store.schema import decode_session
from unit.exchange.trees import asked, branch, sessions, whole

FIXTURES = Path(__file__).resolve().parents[2] / "data" / "sessions"
PAST = datetime(2020, 1, 1, tzinfo=UTC)


def exported(name: str, *many: Session) -> bytes:
    return "".join(find_format(name).document(many, several=len(many) > 1)).encode("utf-8", "replace")


def imported(data: bytes) -> list[Session]:
    found: list[Read | Bad] = list(Reader().read(io.BytesIO(data), "a file"))
    assert not [one for one in found if isinstance(one, Bad)], found
    return [one.session for one in found if isinstance(one, Read)]


def talk(*texts: str, **fields: object) -> Session:
    """Make a session in which question and answer take turns."""
    session = Session(id="20200101T000000000-abcdef", created=PAST, updated=PAST, **fields)  # type: ignore[arg-type]
    for number, text in enumerate(texts):
        message = Message(id=f"m{number}", role="assistant" if number % 2 else "user", text=text, created=PAST)
        message.parent, message.finish = session.head, "stop" if number % 2 else None
        session.messages[message.id], session.head = message, message.id
    return session


@given(sessions())
def test_json_brings_the_whole_tree_back(session: Session) -> None:
    (back,) = imported(exported("json", session))
    assert back == whole(session)


@given(st.lists(sessions(), min_size=2, max_size=4))
def test_json_holds_several_sessions(many: list[Session]) -> None:
    assert imported(exported("json", *many)) == [whole(session) for session in many]


@given(sessions())
@example(talk("\n\nblank\n\n", "\n", "", "ends\n"))
@example(talk("<!-- quantchat:message {} -->\n\\<!-- quantchat:session -->", "# heading\n\n## You\n\n"))
def test_markdown_brings_the_shown_branch_back(session: Session) -> None:
    (back,) = imported(exported("markdown", session))
    assert branch(back) == branch(session)
    assert back.system_prompt == plain(session.system_prompt)
    assert back.tags == session.tags
    assert (back.created, back.updated) == (session.created, session.updated)
    assert session.title == UNTITLED or back.title == session.title
    assert back.messages == {message.id: message for message in back.branch()}


@given(sessions())
def test_lists_of_messages_bring_back_what_a_model_is_asked(session: Session) -> None:
    wanted = asked(session)
    if not wanted:
        return
    (back,) = imported(exported("messages", session))
    assert asked(back) == wanted


@given(st.lists(sessions(), min_size=1, max_size=4))
def test_fine_tuning_lines_bring_back_each_session_up_to_its_last_answer(many: list[Session]) -> None:
    wanted = []
    for session in many:
        said = asked(session)
        while said and said[-1][0] != "assistant":
            said.pop()
        wanted += [said] if said else []
    data = exported("jsonl", *many)
    assert data.count(b"\n") == len(wanted)
    assert [asked(back) for back in imported(data)] == wanted if wanted else data == b""


@given(sessions())
def test_exchanges_are_questions_with_their_answers(session: Session) -> None:
    lines = exported("jsonl-exchanges", session).decode().splitlines(keepends=True)
    for line in "".join(lines).split("\n")[:-1]:
        roles = [message["role"] for message in json.loads(line)["messages"]]
        assert roles[-2:] == ["user", "assistant"]
        assert roles[:-2] == (["system"] if session.system_prompt else [])


@given(sessions(), st.sampled_from(FORMATS))
def test_what_a_format_loses_of_a_session_is_among_what_it_cannot_hold(session: Session, kind: Format) -> None:
    lost = kind.losses(session)
    assert set(lost) <= set(kind.lacks())
    assert ("other branches" in lost) == (kind.name != "json" and len(session.branch()) < len(session.messages))
    assert ("what was not sent" in lost) == bool(session.draft or session.queued)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_nothing_private_is_exported(kind: Format) -> None:
    session = talk("question", "answer", draft="SECRET draft", queued=["SECRET queue"])
    session.edits = {"m0": "SECRET edit"}
    gone = Message(id="gone", role="user", text="SECRET deleted", created=PAST)
    session.deleted = [Deletion(when=PAST, messages={"gone": gone})]
    text = "".join(kind.document([session], several=False))
    assert "question" in text
    assert "SECRET" not in text
    assert {"what was not sent"} <= set(kind.losses(session))


def test_each_format_holds_known_parts_and_json_all_of_them() -> None:
    names = {part.name for part in PARTS}
    assert all(kind.holds <= names for kind in FORMATS)
    assert find_format("json").holds == EVERYTHING


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.md", "markdown"), ("a.JSON", "json"), ("x.html", "html"), ("a.jsonl", "jsonl"), ("my.chat.md", "markdown")],
)
def test_a_file_name_says_its_format(file: str, name: str) -> None:
    assert format_of(file).name == name


@pytest.mark.parametrize("file", ["a.txt", "json", ""])
def test_a_file_name_that_says_no_format_is_refused(file: str) -> None:
    with pytest.raises(UsageError, match="does not say its format"):
        format_of(file)
    with pytest.raises(UsageError, match="no such format"):
        find_format(file + "?")


def test_the_same_file_gives_the_same_ids_each_time() -> None:
    session = talk("question", "answer")
    session.messages["m1"].run = RunCard(model="m")
    for name in ("markdown", "json"):
        first, second = (imported(exported(name, session))[0] for _ in range(2))
        assert (first.id, list(first.messages)) == (second.id, list(second.messages))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_session_files_of_every_version_are_read(version: int) -> None:
    data = (FIXTURES / f"schema{version}.json").read_bytes()
    session = decode_session(data)
    settle(session)
    assert imported(data) == [session]


def test_a_file_of_a_later_version_is_left_to_that() -> None:
    (bad,) = Reader().read(io.BytesIO((FIXTURES / "newer.json").read_bytes()), "newer.json")
    assert isinstance(bad, Bad)
    assert bad.cause.startswith("a later quantchat wrote it")


def test_markdown_that_was_edited_by_hand_is_read() -> None:
    text = exported("markdown", talk("question", "answer")).decode()
    edited = text.replace("question", "another\n\nquestion").replace("## You\n\n", "## Me\n").rstrip("\n")
    (back,) = imported(edited.replace("\n", "\r\n").encode())
    assert [message.text for message in back.branch()] == ["another\n\nquestion", "answer"]
