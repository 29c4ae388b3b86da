"""Sessions as Markdown: comments that no reader sees mark where each message begins, so that it can be read back.

# The title
<!-- quantchat:session {"created": "…"} -->

<!-- quantchat:message {"role": "user", "created": "…"} -->
## You

What was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from quantchat.domain.chat import Message, RunCard, Session, utc_now
from quantchat.domain.text import plain
from quantchat.store.exchange.messages import ROLES, hang_up, name_after
from quantchat.store.exchange.stamps import moment, stamped

MARK = "<!-- quantchat:"
_SECTION = re.compile(r"^<!-- quantchat:([a-z-]+)(?: (\{.*\}))? -->$\n?", re.MULTILINE)
_ESCAPED = re.compile(r"^(\\*)(?=<!-- quantchat:)", re.MULTILINE)
_UNESCAPED = re.compile(r"^\\(?=\\*<!-- quantchat:)", re.MULTILINE)
_HEADING = re.compile(r"\A#{1,6} [^\n]*\n\n?")
_OPENING, _CLOSING = "<details><summary>Thinking</summary>\n\n", "\n\n</details>"


class NotMarked(ValueError):
    """Markdown that cannot be read back; `line` is the number of the line that is wrong."""

    def __init__(self, line: int, cause: str) -> None:
        super().__init__(cause)
        self.line = line


def write_markdown(session: Session) -> str:
    """Return the branch that is shown."""
    about = {"created": session.created.isoformat(), "updated": session.updated.isoformat()}
    title = " ".join(plain(session.title).split())
    parts = [f"# {title}\n{_mark('session', about | ({'tags': session.tags} if session.tags else {}))}\n\n"]
    if session.system_prompt:
        parts.append(f"{_mark('system')}\n## System prompt\n\n{_escaped(session.system_prompt)}\n\n")
    parts += [_message(message) for message in session.branch()]
    return "".join(parts).removesuffix("\n")


def _message(message: Message) -> str:
    about = {"role": message.role, "created": message.created.isoformat()}
    model = message.run.model if message.run else ""
    heading = {"user": "You", "system": "System"}.get(message.role, " ".join(plain(model).split()) or "Assistant")
    mark = _mark("message", about | ({"model": model} if model else {}))
    text = _escaped(message.text)
    if not message.thinking:
        return f"{mark}\n## {heading}\n\n{text}\n\n"
    thinking = f"{_mark('thinking')}\n{_OPENING}{_escaped(message.thinking)}{_CLOSING}\n\n"
    return f"{mark}\n## {heading}\n\n{thinking}{_mark('answer')}\n\n{text}\n\n"


def _mark(kind: str, about: dict[str, Any] | None = None) -> str:
    # Nothing in it may end the comment.
    told = json.dumps(about).replace("--", "-\\u002d").replace(">", "\\u003e") if about else ""
    return f"{MARK}{kind} {told} -->" if told else f"{MARK}{kind} -->"


def _escaped(text: str) -> str:
    return _ESCAPED.sub(r"\1\\", plain(text))


class _Section(NamedTuple):
    line: int
    kind: str
    about: dict[str, Any]
    body: str


def read_markdown(text: str) -> Session:
    """Read a session that `write_markdown` wrote, and somebody may have edited.

    Raises:
        NotMarked: if a mark is damaged or missing.
    """
    sections = list(_sections(text.replace("\r\n", "\n")))
    if not sections or sections[0].kind != "session":
        raise NotMarked(1, "the mark of a session is missing")
    about, system, said = sections[0].about, "", list[Message]()
    for section in sections[1:]:
        if section.kind == "system":
            system = _text(section.body)
        elif section.kind == "message":
            said.append(_read_message(section))
        elif section.kind in ("thinking", "answer") and said:
            _complete(said[-1], section)
        else:
            raise NotMarked(section.line, f"the mark {section.kind!r} has no meaning there")
    return _session(text, about, system, said)


def _session(text: str, about: dict[str, Any], system: str, said: list[Message]) -> Session:
    created = moment(about.get("created")) or min((m.created for m in said), default=utc_now())
    session = Session(id=stamped(created, text), created=created, updated=moment(about.get("updated")) or created)
    session.system_prompt = system
    tags = about.get("tags", [])
    session.tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    hang_up(session, said)
    heading = re.match(r"\s*# ([^\n]*)\n", text)
    name_after(session, heading[1] if heading else None)
    return session


def _sections(text: str) -> Iterator[_Section]:
    marks = list(_SECTION.finditer(text))
    # The last section lacks half of the gap that stands behind the others.
    text += "\n"
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    line, counted = 1, 0
    for mark, end in zip(marks, ends, strict=True):
        line, counted = line + text.count("\n", counted, mark.start()), mark.start()
        yield _Section(line, mark[1], _about(mark[2], line), text[mark.end() : end])


def _about(told: str | None, line: int) -> dict[str, Any]:
    try:
        about = json.loads(told) if told else {}
    except (ValueError, RecursionError) as error:
        raise NotMarked(line, f"the mark holds no JSON: {error}") from error
    return about if isinstance(about, dict) else {}


def _read_message(section: _Section) -> Message:
    role, model = section.about.get("role"), section.about.get("model")
    if not isinstance(role, str) or role not in ROLES:
        raise NotMarked(section.line, f"there is no role {str(role)[:40]!r}")
    answer = ROLES[role] == "assistant"
    return Message(
        id="",
        role=ROLES[role],
        text=_text(section.body),
        created=moment(section.about.get("created")) or utc_now(),
        finish="stop" if answer else None,
        run=RunCard(model=model) if answer and isinstance(model, str) and model else None,
    )


def _complete(message: Message, section: _Section) -> None:
    if section.kind == "thinking":
        inner = _without_gap(section.body).removeprefix(_OPENING).removesuffix(_CLOSING)
        message.thinking = _unescaped(inner)
    else:
        message.text = _unescaped(_without_gap(section.body.removeprefix("\n")))


def _text(body: str) -> str:
    """Return what stands below the heading of a section."""
    return _unescaped(_without_gap(_HEADING.sub("", body, count=1)))


def _without_gap(body: str) -> str:
    """Take away the end of the last line, and the empty line behind it."""
    return body.removesuffix("\n").removesuffix("\n")


def _unescaped(text: str) -> str:
    return _UNESCAPED.sub("", text)
