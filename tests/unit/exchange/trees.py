"""Random sessions: trees of messages with everything that can stand in them, and what is left of one in a format."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import strategies as st

from quantchat.domain.chat import UNTITLED, Deletion, Message, RunCard, Session
from quantchat.domain.generation import SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.domain.text import plain
from quantchat.errors import ErrorReport

MARKS = ["<!-- quantchat:message {} -->", "\\<!-- quantchat:x -->", "<!-- quantchat:answer -->", "# h", "</details>"]
HTML = ["<script>alert(1)</script>", "![x](http://evil.example/x.png)", "<img src=x onerror=y>", "&amp;", "\u202eabc"]

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
lines = st.lists(letters | st.sampled_from([*MARKS, *HTML, "", "```", "\r", "\x1b[2J", "\x00"]), max_size=5)
texts = lines.map("\n".join)
words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=30).map(
    lambda text: " ".join(text.split())
)
times = st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2025, 1, 1), timezones=st.just(UTC))
cards = st.builds(
    RunCard,
    model=words.filter(bool),
    kernel=words,
    sampling=st.none() | st.just(SamplingSettings(seed=7)),
    versions=st.just({}) | st.just({"torch": "2.15"}),
)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Draw a session; each message stands below an earlier one or none."""
    made: list[Message] = []
    for number in range(draw(st.integers(0, 7))):
        role = draw(st.sampled_from(["user", "assistant", "assistant", "user", "system"]))
        answer = role == "assistant"
        message = Message(
            id=f"m{number}",
            role=role,
            text=draw(texts),
            created=draw(times),
            parent=draw(st.none() | st.sampled_from([one.id for one in made])) if made else None,
            thinking=draw(texts) if answer else "",
            finish=draw(st.sampled_from(["stop", "length", "error", "stopped", None])) if answer else None,
            error=draw(st.none() | st.just(ErrorReport(code="x", title="Failed"))) if answer else None,
            run=draw(st.none() | cards) if answer else None,
            statistics=draw(st.none() | st.just(TurnStatistics(new_tokens=3))) if answer else None,
            edited_from=draw(st.none() | st.just("m0")) if number else None,
            given=draw(words) if answer else "",
        )
        made.append(message)
    created = draw(times)
    gone = Message(id="d", role="user", text="secret", created=created)
    return Session(
        id=f"{created:%Y%m%dT%H%M%S}000-{draw(st.integers(0, 2**24 - 1)):06x}",
        title=draw(words) or UNTITLED,
        created=created,
        updated=draw(times),
        messages={one.id: one for one in made},
        head=draw(st.sampled_from([one.id for one in made])) if made else None,
        system_prompt=draw(texts),
        model=draw(st.none() | words),
        sampling=draw(st.just(SamplingOverrides()) | st.just(SamplingOverrides(top_k=3))),
        preset=draw(words),
        queued=draw(st.lists(texts, max_size=1)),
        draft=draw(texts),
        tags=draw(st.lists(words.filter(bool), max_size=3)),
        pinned=draw(st.booleans()),
        archived=draw(st.booleans()),
        named_by="user",
        deleted=draw(st.sampled_from([[], [Deletion(when=created, messages={"d": gone})]])),
    )


def whole(session: Session) -> Session:
    """Return what the JSON of a session is to bring back."""
    copy = msgspec.structs.replace(session, queued=[], draft="", draft_words="", deleted=[], edits={}, origin=None)
    copy.messages = {
        key: msgspec.structs.replace(m, finish="interrupted" if m.role == "assistant" and not m.finish else m.finish)
        for key, m in session.messages.items()
    }
    return copy


def branch(session: Session) -> list[dict[str, object]]:
    """Return what Markdown holds of the messages."""
    return [
        {
            "role": m.role,
            "text": plain(m.text),
            "thinking": plain(m.thinking),
            "created": m.created,
            "model": m.run.model if m.run else "",
        }
        for m in session.branch()
    ]


def asked(session: Session) -> list[tuple[str, str]]:
    """Return what lists of messages hold."""
    return [(message.role, message.content) for message in session.prompt()]
