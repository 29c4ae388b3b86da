"""How a session becomes bytes and back, across versions of the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from quantchat.domain.chat import SCHEMA, UNTITLED, Session, SessionSummary, title_from
from quantchat.domain.text import without_surrogates
from quantchat.domain.thinking import split_thinking

T = TypeVar("T")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

ROW_SCHEMA = 1
"""Since this version the fields of a list row are what they are; `decode_summary` reads older files whole."""


def _part_thinking(content: dict[str, Any]) -> dict[str, Any]:
    """1 to 2: what a model thought leaves the text of its answer for a field of its own."""
    messages = {key: _parted(message) for key, message in content.get("messages", {}).items()}
    return content | {"messages": messages}


def _parted(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "assistant" or "thinking" in message:
        return message
    thinking, text = split_thinking(message["text"])
    return message if text == message["text"] else message | {"thinking": thinking, "text": text}


def _note_who_named(content: dict[str, Any]) -> dict[str, Any]:
    """2 to 3: a title that is not what the rule made of the first prompt was given by the user."""
    if "named_by" in content:
        return content
    first = next((message for message in content.get("messages", {}).values() if message["role"] == "user"), None)
    by_rule = content.get("title", UNTITLED) in (UNTITLED, title_from(first["text"]) if first else UNTITLED)
    return content | {"named_by": "rule" if by_rule else "user"}


UPGRADES: Mapping[int, Upgrade] = {1: _part_thinking, 2: _note_who_named}
"""From a version to the next one. Each step must give the same result when it meets its own output."""


class NewerSchema(Exception):
    """The file was written by a later quantchat."""

    def __init__(self, version: int) -> None:
        super().__init__(f"schema {version}, this quantchat reads up to {SCHEMA}")
        self.version = version


class _Version(msgspec.Struct):
    version: int = 1


class _Nothing(msgspec.Struct):
    """Stands for a message that is counted and not read."""


class _Row(msgspec.Struct):
    """The fields of a list row; the rest of the file is checked and skipped, not built."""

    updated: datetime
    created: datetime
    title: str = UNTITLED
    version: int = 1
    messages: dict[str, _Nothing] = {}
    pinned: bool = False
    archived: bool = False
    tags: tuple[str, ...] = ()


_sessions = msgspec.json.Decoder(Session)
_versions = msgspec.json.Decoder(_Version)
_rows = msgspec.json.Decoder(_Row)
_objects = msgspec.json.Decoder(dict[str, Any])


def encode_json(value: Any) -> bytes:
    """Encode as JSON; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(without_surrogates(msgspec.to_builtins(value)))


def encode_session(session: Session) -> bytes:
    """Return the file of a session: indented JSON that names its schema version.

    Raises:
        msgspec.ValidationError: if the session holds a value that could not be read back.
    """
    body = encode_json(msgspec.structs.replace(session, version=SCHEMA))
    # The struct leaves out defaults, and the version is one; a file without it could not be upgraded later.
    body = b'{"version":%d,' % SCHEMA + body[1:]
    _decode(_sessions, body)
    return msgspec.json.format(body, indent=2) + b"\n"


def decode_session(data: bytes, *, schema: int = SCHEMA, upgrades: Mapping[int, Upgrade] = UPGRADES) -> Session:
    """Read a session of any version up to `schema`.

    Raises:
        NewerSchema: if a later quantchat wrote it.
        msgspec.DecodeError: if it is not a session.
    """
    version = _decode(_versions, data).version
    if version > schema:
        raise NewerSchema(version)
    if version == schema:
        return _decode(_sessions, data)
    if version < 1:
        raise msgspec.ValidationError(f"there is no schema {version}")
    content = upgrade(_decode(_objects, data), schema=schema, upgrades=upgrades)
    return msgspec.convert(content, Session)


def decode_readable(data: bytes) -> Session:
    """Read a session of any version; one of a later quantchat as far as it is known here, its version unchanged.

    Raises:
        NewerSchema: if nothing of a later one is known here.
        msgspec.DecodeError: if it is not a session.
    """
    try:
        return decode_session(data)
    except NewerSchema as newer:
        from quantchat.store.newer import salvage_session

        try:
            content: dict[str, Any] = _decode(_objects, data)
            return salvage_session(content)
        except msgspec.ValidationError as error:
            raise newer from error


def upgrade(content: dict[str, Any], *, schema: int, upgrades: Mapping[int, Upgrade]) -> dict[str, Any]:
    """Lead a decoded file step by step to `schema`.

    Raises:
        msgspec.ValidationError: if a step does not find what its version promises.
    """
    for version in range(content.get("version", 1), schema):
        try:
            content = upgrades[version](content) | {"version": version + 1}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise msgspec.ValidationError(f"schema {version} could not be upgraded: {error!r}") from error
    return content


def decode_summary(session_id: str, data: bytes) -> SessionSummary:
    """Read only what a list row shows.

    Raises:
        NewerSchema, msgspec.DecodeError: as `decode_session`.
    """
    try:
        row = _decode(_rows, data)
    except msgspec.DecodeError:
        row = None
    # Another version may have moved these fields: its whole file decides what it is.
    known = row is not None and ROW_SCHEMA <= row.version <= SCHEMA
    if row is None or not known:
        return msgspec.structs.replace(SessionSummary.of(decode_readable(data)), id=session_id)
    return SessionSummary(
        id=session_id,
        title=row.title,
        updated=row.updated,
        messages=len(row.messages),
        created=row.created,
        pinned=row.pinned,
        archived=row.archived,
        tags=row.tags,
    )


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
