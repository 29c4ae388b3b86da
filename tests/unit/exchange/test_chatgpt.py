"""ChatGPT's export: its tree, its odd nodes, its zip."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.chat import Session
from quantchat.errors import StorageError
from quantchat.store.exchange.reading import Bad, Read, Reader

Nodes = dict[str, dict[str, Any]]


def node(name: str, parent: str | None, role: str = "", text: object = "", **more: Any) -> Nodes:
    """Make one node as the export has it; without a role an empty one, such as its root."""
    message = {
        "id": name,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1700000000.5,
        "update_time": None,
        "content": {"content_type": "text", "parts": [text]} if isinstance(text, str) else text,
        "status": "finished_successfully",
        "end_turn": True,
        "weight": 1.0,
        "metadata": {"model_slug": "gpt-4o"} if role == "assistant" else {},
        "recipient": "all",
    }
    return {name: {"id": name, "message": message | more if role else None, "parent": parent, "children": []}}


def conversation(*nodes: Nodes, current: str, **more: Any) -> dict[str, Any]:
    mapping: Nodes = {}
    for one in nodes:
        mapping |= one
    for name, one in mapping.items():
        if one["parent"] in mapping:
            mapping[one["parent"]]["children"].append(name)
    told = {"title": "Tides", "create_time": 1700000000.0, "update_time": 1700000100.0, "conversation_id": "c-1"}
    return {**told, "mapping": mapping, "current_node": current, **more}


def read(content: object) -> tuple[list[Session], list[Bad], dict[str, int]]:
    reader = Reader()
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    found = list(reader.read(io.BytesIO(data), "conversations.json"))
    good = [one.session for one in found if isinstance(one, Read)]
    return good, [one for one in found if isinstance(one, Bad)], dict(reader.left_out)


def one(content: object) -> Session:
    good, bad, _ = read(content)
    assert not bad
    (session,) = good
    return session


def said(session: Session) -> Sequence[tuple[str, str]]:
    return [(message.role, message.text) for message in session.branch()]


BASE = (node("root", None), node("q", "root", "user", "Why do tides come?"), node("a", "q", "assistant", "The moon."))


def test_a_conversation_becomes_a_session() -> None:
    session = one([conversation(*BASE, current="a")])
    assert said(session) == [("user", "Why do tides come?"), ("assistant", "The moon.")]
    assert (session.title, session.named_by, session.archived) == ("Tides", "user", False)
    assert (session.created.timestamp(), session.updated.timestamp()) == (1700000000.0, 1700000100.0)
    answer = session.branch()[-1]
    assert answer.finish == "stop"
    assert answer.run is not None
    assert answer.run.model == "gpt-4o"
    assert session.id == one([conversation(*BASE, current="a")]).id


def test_branches_stay_branches_in_their_order() -> None:
    nodes = (*BASE, node("a2", "q", "assistant", "The sun."), node("q2", "root", "user", "Why storms?"))
    content = conversation(*nodes, current="a2")
    content["mapping"]["q"]["children"] = ["a2", "a"]
    session = one([content])
    assert said(session)[-1] == ("assistant", "The sun.")
    first = next(message for message in session.messages.values() if message.text == "The moon.")
    assert [version.text for version in session.siblings(first.id)] == ["The sun.", "The moon."]
    assert len(session.messages) == 4


def test_tools_and_hidden_messages_are_left_out_and_steps_of_one_answer_joined() -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "Plan", "content": "Look it up"}]}
    search = {"content_type": "code", "language": "unknown", "text": "search('moon')"}
    session, *_ = read(
        [
            conversation(
                node("root", None),
                node("hid", "root", "system", "", metadata=hidden),
                node("ctx", "hid", "user", {"content_type": "user_editable_context"}, metadata=hidden),
                node("q", "ctx", "user", "Why?"),
                node("t", "q", "assistant", thoughts),
                node("s", "t", "assistant", search, recipient="web"),
                node("r", "s", "tool", "results"),
                node("x", "r", "assistant", "First."),
                node("y", "x", "assistant", "Then."),
                node("n", "y", "user", "Thanks"),
                current="n",
            )
        ]
    )
    (found,) = session
    assert said(found) == [("user", "Why?"), ("assistant", "First.\n\nThen."), ("user", "Thanks")]
    assert found.branch()[1].thinking == "Plan\n\nLook it up"
    assert read([conversation(*BASE, node("r", "a", "tool", "results"), current="r")])[2] == {"steps of tools": 1}


def test_a_branch_in_the_middle_of_an_answer_keeps_both_ways() -> None:
    nodes = (*BASE, node("b", "a", "assistant", "One end."), node("c", "a", "assistant", "Other end."))
    session = one([conversation(*nodes, current="c")])
    assert [text for _, text in said(session)] == ["Why do tides come?", "The moon.", "Other end."]
    assert {message.text for message in session.messages.values()} >= {"One end.", "Other end."}


def test_pictures_and_sounds_are_counted() -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    spoken = {"content_type": "audio_transcription", "text": "spoken words"}
    parts = {"content_type": "multimodal_text", "parts": [picture, "What is it?", spoken, None]}
    good, bad, left = read([conversation(node("q", None, "user", parts), current="q")])
    assert said(good[0]) == [("user", "What is it?spoken words")]
    assert (bad, left) == ([], {"pictures, sounds and files": 2})


@pytest.mark.parametrize("when", [None, "yesterday", float("1e300"), -5e17, True, {}])
def test_times_that_are_none_do_no_harm(when: object) -> None:
    session = one([conversation(node("q", None, "user", "Why?", create_time=when), current="q", create_time=when)])
    assert said(session) == [("user", "Why?")]


@pytest.mark.parametrize("current", [None, "gone", 7, "root"])
def test_a_current_node_that_says_nothing_shows_the_last_message(current: object) -> None:
    content = conversation(*BASE, current="a")
    content["current_node"] = current
    assert said(one([content]))[-1] == ("assistant", "The moon.")


def test_parents_that_are_missing_begin_branches() -> None:
    session = one([conversation(*BASE, node("lost", "nowhere", "user", "Hello?"), current="a")])
    assert {message.text for message in session.messages.values() if message.parent is None} == {
        "Why do tides come?",
        "Hello?",
    }


def test_circles_are_named_and_the_others_are_read() -> None:
    circle = conversation(node("x", "y", "user", "a"), node("y", "x", "user", "b"), current="x")
    data = b"[\n" + json.dumps(circle).encode() + b",\n" + json.dumps(conversation(*BASE, current="a")).encode() + b"]"
    good, bad, _ = read(data)
    assert len(good) == 1
    assert bad == [Bad(2, "node 'x' follows itself")]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"mapping": []}, "Expected `object`, got `array`"),
        ({"mapping": {"a": {"message": {"author": {"role": 5}}}}}, "Expected `str`, got `int`"),
        ({"mapping": {"a": {"children": "b"}}}, "Expected `array`, got `str`"),
        ({"mapping": {}}, "holds no messages"),
        ({"mapping": {"a": {"message": None}}}, "holds no messages"),
    ],
)
def test_wrong_types_are_named(content: object, cause: str) -> None:
    good, bad, _ = read([content])
    assert not good
    assert cause in bad[0].cause


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[str | None, str]]:
    """Draw nodes by name: their parent, and their role, empty where nothing of them is shown."""
    nodes: dict[str, tuple[str | None, str]] = {}
    for number in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from([None, *nodes])) if nodes else None
        nodes[f"n{number}"] = (parent, draw(st.sampled_from(["user", "assistant", "assistant", "tool", ""])))
    return nodes


@given(trees())
def test_every_word_of_every_branch_comes_in_where_it_stood(drawn: dict[str, tuple[str | None, str]]) -> None:
    shown = {name for name, (_, role) in drawn.items() if role in ("user", "assistant")}
    nodes = (node(name, parent, role, f"said-{name}") for name, (parent, role) in drawn.items())
    good, bad, _ = read([conversation(*nodes, current="n0")])
    assert len(good) == bool(shown)
    assert len(bad) == (not shown)
    inner = {parent for parent, _ in drawn.values()}
    for leaf in shown - inner:
        way, here = [], leaf
        while here is not None:
            way += [f"said-{here}"] if here in shown else []
            here = drawn[here][0]
        end = next(message.id for message in good[0].messages.values() if f"said-{leaf}" in message.text.split())
        assert " ".join(message.text for message in good[0].branch(end)).split() == way[::-1]


def test_a_very_long_thread_is_no_problem() -> None:
    length = 8_000
    nodes = [node("0", None, "user", "first")]
    nodes += [node(str(n), str(n - 1), "assistant" if n % 2 else "user", f"turn {n}") for n in range(1, length)]
    assert len(one([conversation(*nodes, current=str(length - 1))]).branch()) == length


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name.replace("__", "/") + ".json", data)
    return file.getvalue()


def test_the_zip_is_read_in_all_its_parts(tmp_path: Path) -> None:
    first = json.dumps([conversation(*BASE, current="a")]).encode()
    second = json.dumps([conversation(*BASE, current="a", conversation_id="c-2")]).encode()
    data = archive(user=b"{}", **{"conversations-000": first, "export__conversations-001": second})
    assert len(read(data)[0]) == 2
    path = tmp_path / "export.zip"
    path.write_bytes(data)
    reader = Reader()
    assert len(list(reader.read_path(path))) == 2
    assert reader.progress.done == reader.progress.total == len(first) + len(second)


@pytest.mark.parametrize("cut", [30, 200, -30])
def test_a_damaged_zip_is_refused(cut: int) -> None:
    data = archive(conversations=json.dumps([conversation(*BASE, current="a")]).encode())
    with pytest.raises(StorageError, match="cannot be unpacked"):
        read(data[:cut])
    with pytest.raises(StorageError, match=r"holds no conversations\.json"):
        read(archive(user=b"{}"))


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_a_zip_comes_through_a_pipe() -> None:
    data = archive(conversations=json.dumps([conversation(*BASE, current="a")]).encode())
    assert len(list(Reader().read(Pipe(data), "standard input"))) == 1
