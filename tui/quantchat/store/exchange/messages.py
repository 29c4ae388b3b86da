"""Lists of messages as OpenAI's chat API has them, `[{"role": "user", "content": "…"}]`; as JSONL they train models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from quantchat.domain.chat import UNTITLED, ChatMessage, Message, Role, RunCard, Session, title_from, utc_now
from quantchat.store.exchange.stamps import moment, stamped

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
LEFT_OUT = frozenset({"tool", "function", "ipython"})
LONGEST_TITLE = 200
THINKING = ("reasoning_content", "reasoning", "thinking")


def write_list(session: Session) -> str:
    """Return what the model would be asked with, as a list of messages."""
    return json.dumps(_plain(session.prompt()), ensure_ascii=False, indent=2) + "\n"


def write_line(session: Session) -> str:
    """Return the session up to its last answer as a line for fine-tuning; nothing if there is no answer."""
    asked = session.prompt()
    while asked and asked[-1].role != "assistant":
        asked.pop()
    return _line(asked) if asked else ""


def write_exchanges(session: Session) -> str:
    """Return a line for each question with its answer, both without what came before, under the system prompt."""
    asked = session.prompt()
    system = asked[:1] if session.system_prompt else []
    return "".join(
        _line([*system, question, answer])
        for question, answer in pairwise(asked)
        if question.role == "user" and answer.role == "assistant"
    )


def _line(messages: list[ChatMessage]) -> str:
    return json.dumps({"messages": _plain(messages)}, ensure_ascii=False) + "\n"


def _plain(messages: Iterable[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


class NotAMessage(ValueError):
    """What stands in a list of messages and is none; the text says why."""


class History:
    """Becomes a session, message by message; what has no place in one is counted in `left_out`."""

    def __init__(self, left_out: Counter[str]) -> None:
        self._left_out = left_out
        self._said: list[Message] = []
        self._system = ""
        self.seen = 0

    def add(self, value: object) -> None:
        """Take the next message.

        Raises:
            NotAMessage: if it is none.
        """
        self.seen += 1
        if not isinstance(value, dict):
            raise NotAMessage(f"message {self.seen} is no object with role and content")
        role = value.get("role")
        if not isinstance(role, str) or role not in ROLES.keys() | LEFT_OUT:
            raise NotAMessage(f"message {self.seen} has the role {str(role)[:40]!r}")
        if role in LEFT_OUT:
            self._left_out["messages of tools"] += 1
        else:
            self._keep(ROLES[role], value)

    def _keep(self, role: Role, value: Mapping[str, Any]) -> None:
        text = "".join(self._texts(value.get("content")))
        thinking = next((value[key] for key in THINKING if isinstance(value.get(key), str)), "")
        if value.get("tool_calls") or value.get("function_call"):
            self._left_out["calls of tools"] += 1
        if role == "system" and not self._said and not self._system:
            self._system = text
        elif text or thinking:
            self._said.append(self._message(role, text, thinking, value))

    def _message(self, role: Role, text: str, thinking: str, value: Mapping[str, Any]) -> Message:
        answer = role == "assistant"
        model = value.get("model")
        return Message(
            id="",
            role=role,
            text=text,
            thinking=thinking if answer else "",
            created=moment(value.get("created") or value.get("timestamp")) or utc_now(),
            finish="stop" if answer else None,
            run=RunCard(model=model) if answer and isinstance(model, str) and model else None,
        )

    def _texts(self, content: object) -> Iterator[str]:
        if content is None:
            return
        if isinstance(content, str):
            yield content
            return
        if not isinstance(content, list):
            raise NotAMessage(f"the content of message {self.seen} is neither text nor a list of parts")
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
            else:
                self._left_out["pictures, sounds and files"] += 1

    def session(self, about: Mapping[str, Any]) -> Session:
        """Return the session of all messages, with what is said `about` it beside them.

        Raises:
            NotAMessage: if there are no messages.
        """
        if not self._said and not self._system:
            raise NotAMessage("it holds no messages")
        created = moment(about.get("created")) or min((message.created for message in self._said), default=utc_now())
        session = Session(id="", created=created, updated=max((m.created for m in self._said), default=created))
        session.system_prompt = self._system
        hang_up(session, self._said)
        name_after(session, about.get("title"))
        key = json.dumps([[m.role, m.text] for m in self._said])
        session.id = stamped(created, f"{self._system}\n{key}")
        return session


def hang_up(session: Session, said: Iterable[Message]) -> None:
    """Make one branch of messages, and give them ids."""
    for number, message in enumerate(said):
        message.parent, message.id = session.head, f"{message.created:%Y%m%dT%H%M%S}000-{number:06x}"
        session.messages[message.id] = message
        session.head = message.id


def name_after(session: Session, title: object) -> None:
    """Give a session the title that its file names, or one by the rule."""
    words = " ".join(title.split())[:LONGEST_TITLE] if isinstance(title, str) else ""
    if words and words != UNTITLED:
        session.title, session.named_by = words, "user"
        return
    first = next((message for message in session.messages.values() if message.role == "user"), None)
    if first is not None:
        session.title = title_from(first.text)


def read_messages(value: Mapping[str, Any], left_out: Counter[str]) -> Session:
    """Read an object that holds a list of messages.

    Raises:
        NotAMessage: if that is no such list.
    """
    history = History(left_out)
    for message in value["messages"]:
        history.add(message)
    return history.session(value)
