"""Conversations of ChatGPT's data export: `mapping` is a tree of nodes, with tools and hidden messages among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from quantchat.domain.chat import Message, RunCard, Session, utc_now
from quantchat.domain.generation import FinishReason
from quantchat.store.exchange.messages import name_after
from quantchat.store.exchange.stamps import moment, stamped

HIDDEN = "is_visually_hidden_from_conversation"
ENDS: Mapping[str, FinishReason] = {"max_tokens": "length", "interrupted": "stopped"}
_TOOLS = "steps of tools"
_MEDIA = "pictures, sounds and files"


class NotAConversation(ValueError):
    """A conversation that contradicts itself; the text says how."""


class _Author(msgspec.Struct):
    role: str = ""


class _Said(msgspec.Struct):
    author: _Author = msgspec.field(default_factory=_Author)
    content: dict[str, Any] | None = None
    create_time: Any = None
    metadata: dict[str, Any] | None = None
    status: Any = ""
    recipient: Any = "all"


class _Node(msgspec.Struct):
    message: _Said | None = None
    parent: str | None = None
    children: list[str] = []


class _Conversation(msgspec.Struct):
    mapping: dict[str, _Node]
    title: Any = None
    create_time: Any = None
    update_time: Any = None
    current_node: Any = None
    conversation_id: Any = None
    id: Any = None
    default_model_slug: Any = None
    is_archived: Any = None


def read_conversation(value: Mapping[str, Any], left_out: Counter[str]) -> Session:
    """Read one conversation with all its branches; what has no place in a session is counted in `left_out`.

    Raises:
        NotAConversation: if its nodes are no tree.
        msgspec.ValidationError: if something in it has the wrong type.
    """
    source = msgspec.convert(value, _Conversation)
    created = moment(source.create_time) or _first_time(source) or utc_now()
    key = source.conversation_id or source.id or json.dumps(sorted(source.mapping))
    session = Session(id=stamped(created, str(key)), created=created, updated=created)
    _Planting(source, session, left_out).plant()
    if not session.messages:
        raise NotAConversation("it holds no messages that can be shown")
    session.updated = moment(source.update_time) or max(m.created for m in session.messages.values())
    session.archived = source.is_archived is True
    name_after(session, source.title)
    return session


def _first_time(source: _Conversation) -> datetime | None:
    times = (moment(node.message.create_time) for node in source.mapping.values() if node.message)
    return min((time for time in times if time is not None), default=None)


class _Planting:
    """Puts the nodes of a conversation into a session."""

    def __init__(self, source: _Conversation, session: Session, left_out: Counter[str]) -> None:
        self._nodes, self._source = source.mapping, source
        self._session, self._left_out = session, left_out
        self._below = self._children()
        self._shown: set[str] = set()
        self._place: dict[str, str | None] = {}
        """The message that each node became, or was left out below."""

    def plant(self) -> None:
        for node_id in self._downwards():
            node = self._nodes[node_id]
            above = self._place.get(node.parent) if node.parent is not None else None
            message = self._message(node_id, node.message) if node.message is not None else None
            self._place[node_id] = above if message is None else self._join(message, above, node)
            if message is not None:
                self._shown.add(node_id)
        current = self._source.current_node
        shown = self._place.get(current) if isinstance(current, str) else None
        self._session.head = shown or next(reversed(self._session.messages), None)

    def _children(self) -> dict[str | None, list[str]]:
        """Return what is below each node, in the order that it names; a parent that is missing is as good as none."""
        below: dict[str | None, list[str]] = {}
        for node_id, node in self._nodes.items():
            below.setdefault(node.parent if node.parent in self._nodes else None, []).append(node_id)
        for parent, children in below.items():
            if parent is not None and len(children) > 1:
                order = {child: place for place, child in enumerate(self._nodes[parent].children)}
                children.sort(key=lambda child: order.get(child, len(order)))
        return below

    def _downwards(self) -> Iterator[str]:
        ahead = list(reversed(self._below.get(None, [])))
        seen = 0
        while ahead:
            here = ahead.pop()
            seen += 1
            yield here
            ahead += reversed(self._below.get(here, []))
        if seen < len(self._nodes):
            lost = next(node for node in self._nodes if node not in self._place)
            raise NotAConversation(f"node {lost[:40]!r} follows itself")

    def _join(self, message: Message, above: str | None, node: _Node) -> str:
        """Hang a message up; the steps of one answer, one below the other, become one."""
        messages = self._session.messages
        upper = messages.get(above) if above is not None else None
        both = upper is not None and upper.role == message.role == "assistant"
        if upper is not None and both and self._is_only_way(node.parent):
            upper.text = "\n\n".join(filter(None, (upper.text, message.text)))
            upper.thinking = "\n\n".join(filter(None, (upper.thinking, message.thinking)))
            upper.finish, upper.run = message.finish, message.run or upper.run
            return upper.id
        message.parent = above
        messages[message.id] = message
        return message.id

    def _is_only_way(self, above: str | None) -> bool:
        """Whether nothing branches off from a node up to the next one that is shown."""
        while above is not None and len(self._below.get(above, [])) == 1:
            if above in self._shown:
                return True
            above = self._nodes[above].parent
        return False

    def _message(self, node_id: str, said: _Said) -> Message | None:
        role, metadata = said.author.role, said.metadata or {}
        if role not in ("user", "assistant") or metadata.get(HIDDEN) is True:
            if role == "system" and not self._session.system_prompt and metadata.get(HIDDEN) is not True:
                self._session.system_prompt = self._words(said)[0]
            elif role == "tool":
                self._left_out[_TOOLS] += 1
            return None
        text, thinking = self._words(said)
        if not text and not thinking:
            return None
        created = moment(said.create_time) or self._session.created
        return Message(
            id=self._free_id(created, node_id),
            role="user" if role == "user" else "assistant",
            text=text,
            thinking=thinking,
            created=created,
            finish=_finish(said) if role == "assistant" else None,
            run=_card(metadata, self._source) if role == "assistant" else None,
        )

    def _free_id(self, created: datetime, node_id: str) -> str:
        """Make the id of a message; six digits of a digest are not enough to tell thousands of one moment apart."""
        wanted, number = stamped(created, node_id), 0
        while wanted in self._session.messages:
            number += 1
            wanted = stamped(created, f"{node_id} {number}")
        return wanted

    def _words(self, said: _Said) -> tuple[str, str]:
        """Return the text and the thinking of a message."""
        content = said.content or {}
        kind = content.get("content_type", "text")
        if kind == "thoughts":
            thoughts = content.get("thoughts")
            listed = thoughts if isinstance(thoughts, list) else []
            return "", "\n\n".join(_thought(one) for one in listed if isinstance(one, dict)).strip()
        if kind in ("text", "multimodal_text"):
            parts = content.get("parts")
            return "".join(self._part(part) for part in (parts if isinstance(parts, list) else [])), ""
        if kind == "code" and said.recipient in ("all", None) and isinstance(content.get("text"), str):
            return _fenced(content), ""
        if kind != "reasoning_recap":
            self._left_out[_TOOLS] += 1
        return "", ""

    def _part(self, part: object) -> str:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            return text
        self._left_out[_MEDIA] += 1
        return ""


def _thought(thought: Mapping[str, Any]) -> str:
    parts = (thought.get(key) for key in ("summary", "content"))
    return "\n\n".join(part for part in parts if isinstance(part, str) and part)


def _fenced(content: Mapping[str, Any]) -> str:
    language = content.get("language")
    name = language if isinstance(language, str) and language.isalnum() and language != "unknown" else ""
    return f"````{name}\n{content['text']}\n````"


def _finish(said: _Said) -> FinishReason:
    details = (said.metadata or {}).get("finish_details")
    kind = details.get("type") if isinstance(details, dict) else None
    if isinstance(kind, str) and kind in ENDS:
        return ENDS[kind]
    return "interrupted" if said.status == "in_progress" else "stop"


def _card(metadata: Mapping[str, Any], source: _Conversation) -> RunCard | None:
    model = metadata.get("model_slug") or source.default_model_slug
    return RunCard(model=model) if isinstance(model, str) and model else None
