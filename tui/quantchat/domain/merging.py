"""Two states of one session become one that holds all that either of them held."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import msgspec

from quantchat.domain.chat import Deletion, Message, Session, new_id

TRAITS = (
    "title",
    "named_by",
    "system_prompt",
    "model",
    "sampling",
    "preset",
    "template",
    "tags",
    "pinned",
    "archived",
)
"""Of these there can be one value only."""
JOINED = ("draft", "draft_words", "queued", "edits")
"""Of these both are kept, where both changed."""

Traits = Mapping[str, object]


def traits(session: Session) -> Traits:
    """Return what a session is like beside its messages, to tell later what was changed."""
    return {name: copy(getattr(session, name)) for name in (*TRAITS, *JOINED)}


def merge(ours: Session, theirs: Session, base: Traits | None = None) -> Session:
    """Return a session with the messages of both; the place that is shown and the draft are ours where we have them.

    A message that only one of the two has deleted stays. Of a trait that both changed since `base`, ours wins; without
    a base that of the state that was changed last.
    """
    messages = _messages(ours, theirs)
    return msgspec.structs.replace(
        ours,
        **_traits(ours, theirs, base),
        **_joined(ours, theirs, base or {}),
        messages=messages,
        head=_head(messages, ours, theirs),
        deleted=_deleted(messages, ours, theirs),
        origin=ours.origin or theirs.origin,
        created=min(ours.created, theirs.created),
        updated=max(ours.updated, theirs.updated),
    )


def _traits(ours: Session, theirs: Session, base: Traits | None) -> Traits:
    mine, other = traits(ours), traits(theirs)
    if base is None:
        later = mine if ours.updated >= theirs.updated else other
        return {name: later[name] for name in TRAITS}
    return {name: other[name] if mine[name] == base[name] else mine[name] for name in TRAITS}


def _joined(ours: Session, theirs: Session, base: Traits) -> Traits:
    """Of what is written but not sent, what changed on one side only is that side's."""
    both = _draft(ours, theirs) | {
        "queued": [*theirs.queued, *(prompt for prompt in ours.queued if prompt not in theirs.queued)],
        "edits": theirs.edits | ours.edits,
    }
    mine, other = traits(ours), traits(theirs)
    for name in both:
        if name in base and other[name] == base[name]:
            both[name] = mine[name]
        elif name in base and mine[name] == base[name]:
            both[name] = other[name]
    return both


def _messages(ours: Session, theirs: Session) -> dict[str, Message]:
    messages = dict(theirs.messages)
    for name, message in ours.messages.items():
        known = messages.get(name)
        messages[name] = message if known is None else _fuller(message, known)
        if known is not None and (other := _said_otherwise(messages[name], message, known)) is not None:
            _put_beside(messages, other)
    return messages


def _said_otherwise(kept: Message, ours: Message, theirs: Message) -> Message | None:
    """Return the state that is not kept if it says what the kept one does not: both went on with one answer."""
    other = theirs if kept is ours else ours
    ended = ours.finish is not None and theirs.finish is not None
    return other if ended and not kept.text.startswith(other.text) else None


def _put_beside(messages: dict[str, Message], other: Message) -> None:
    """Add a version of an answer, unless an earlier merge did."""
    if not any(one.parent == other.parent and one.text == other.text for one in messages.values()):
        version = msgspec.structs.replace(other, id=new_id())
        messages[version.id] = version


def _fuller(ours: Message, theirs: Message) -> Message:
    """Return the one that says more; an answer that is being written here stays the one that it is written into."""
    if ours.role == "assistant" and (ours.finish is None or theirs.finish is None):
        return ours
    return theirs if _length(theirs) > _length(ours) else ours


def _length(message: Message) -> int:
    return len(message.text) + len(message.thinking)


def _head(messages: dict[str, Message], ours: Session, theirs: Session) -> str | None:
    """Whoever works here stays on the branch that is shown, at its end if the other has gone on with it."""
    if ours.head not in messages:
        return theirs.head
    if theirs.head in messages and any(message.id == ours.head for message in theirs.branch()):
        return theirs.head
    return ours.head


def _draft(ours: Session, theirs: Session) -> dict[str, object]:
    if not ours.draft or ours.draft in theirs.draft:
        return {"draft": theirs.draft, "draft_words": theirs.draft_words}
    if theirs.draft in ours.draft:
        return {"draft": ours.draft, "draft_words": ours.draft_words}
    return {"draft": f"{theirs.draft}\n\n{ours.draft}", "draft_words": ""}


def _deleted(messages: dict[str, Message], ours: Session, theirs: Session) -> list[Deletion]:
    """All deletions, oldest first, without what is still there."""
    both = {deletion.when: deletion for deletion in (*theirs.deleted, *ours.deleted)}
    deletions = []
    for _, deletion in sorted(both.items()):
        if not any(name in messages for name in deletion.messages):
            deletions.append(deletion)
            continue
        gone = {name: message for name, message in deletion.messages.items() if name not in messages}
        if gone:
            deletions.append(msgspec.structs.replace(deletion, messages=gone, places=[]))
    return deletions
