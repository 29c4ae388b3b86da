"""What can be read of a session that a later quantchat wrote. It is shown, and never written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from quantchat.domain.chat import Message, Session

S = TypeVar("S", bound=msgspec.Struct)

_WHEN = re.compile(r"^(\d{8}T\d{6})(\d{3})-")
EPOCH = datetime.fromtimestamp(0, UTC)


def salvage_session(content: Mapping[str, Any]) -> Session:
    """Take what has the form that is known here; the version stays that of the file.

    Raises:
        msgspec.ValidationError: if there is neither a title nor a message to show.
    """
    name = content.get("id")
    began = _moment(name if isinstance(name, str) else "")
    known = _known(content, Session, left_out={"messages", "deleted"})
    messages = _messages(content.get("messages"), began)
    if not messages and "title" not in known:
        raise msgspec.ValidationError("nothing in it is known here")
    defaults = {"id": "", "created": began, "updated": began}
    session = Session(**{**defaults, **known, "messages": messages})
    session.version = content["version"]
    if session.head not in messages:
        session.head = next(reversed(messages), None)
    return session


def _messages(found: object, began: datetime) -> dict[str, Message]:
    messages = {}
    for name, content in found.items() if isinstance(found, dict) else ():
        if isinstance(content, dict):
            known = _known(content, Message)
            with contextlib.suppress(TypeError):
                messages[str(name)] = Message(**{"created": _moment(str(name), began), "text": "", **known, "id": name})
    return messages


def _known(content: Mapping[str, Any], kind: type[S], left_out: Set[str] = frozenset()) -> dict[str, Any]:
    """Convert the fields that have the type of today, each by itself."""
    known = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in content and field.name not in left_out:
            with contextlib.suppress(msgspec.ValidationError):
                known[field.name] = msgspec.convert(content[field.encode_name], field.type)
    return known


def _moment(name: str, otherwise: datetime = EPOCH) -> datetime:
    """Return the moment that an id was made at."""
    found = _WHEN.match(name)
    if found is None:
        return otherwise
    with contextlib.suppress(ValueError):
        return datetime.strptime("".join(found.groups()) + "000", "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    return otherwise
