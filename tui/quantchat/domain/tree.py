"""What is done to the tree of a session: versions, branches, deletions that can be undone, forks.

Nothing here forgets a word: a change stands beside what it changes, and what is deleted waits to be put back.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from quantchat.domain.chat import UNTITLED, Deletion, Message, Origin, Session, title_from

FORKED = " (fork)"
BEGINNING = "begin:"
"""Before the id of a question: the key of an answer's beginning in `Session.edits`."""


def subtree(session: Session, message_id: str) -> list[str]:
    """Return a message and all below it, in the order in which the session holds them."""
    children: dict[str | None, list[str]] = defaultdict(list)
    for message in session.messages.values():
        children[message.parent].append(message.id)
    found: set[str] = set()
    ahead = [message_id]
    while ahead:
        here = ahead.pop()
        if here not in found:
            found.add(here)
            ahead += children[here]
    return [one for one in session.messages if one in found]


def newest_leaf(session: Session, message_id: str) -> str:
    """Return the end of the branch that was written last among those through a message."""
    below = subtree(session, message_id)
    inner = {session.messages[one].parent for one in below}
    return next((one for one in reversed(below) if one not in inner), message_id)


def show(session: Session, message_id: str) -> None:
    """Turn to a branch through a message: the one that is shown if it does, else the newest."""
    if all(message.id != message_id for message in session.branch()):
        session.head = newest_leaf(session, message_id)


def revise(session: Session, message_id: str, text: str) -> Message:
    """Put a changed copy of a message beside it, and make that the head.

    A changed answer ends there as if it had been stopped, so that it can go on.
    """
    original = session.messages[message_id]
    copy = session.append(original.role, text, parent=original.parent)
    copy.edited_from = original.id
    if original.role == "assistant":
        copy.thinking, copy.run, copy.finish = original.thinking, original.run, "stopped"
    return copy


def begin_answer(session: Session, question: str, text: str) -> Message:
    """Put the beginning of an answer below a question, to go on from there, and make it the head."""
    answer = session.append("assistant", text, parent=question)
    answer.given, answer.finish = text, "stopped"
    return answer


def delete(session: Session, message_id: str) -> Deletion:
    """Take a message and all below it out of a session; the version beside it, or what is above, is the head then."""
    gone, beside = subtree(session, message_id), _beside(session, message_id)
    order = {one: place for place, one in enumerate(session.messages)}
    parent = session.messages[message_id].parent
    deletion = Deletion(
        when=session.touch(),
        messages={one: session.messages.pop(one) for one in gone},
        head=session.head,
        places=[order[one] for one in gone],
    )
    session.deleted.append(deletion)
    if session.head not in session.messages:
        session.head = newest_leaf(session, beside) if beside else parent if parent in session.messages else None
    return deletion


def _beside(session: Session, message_id: str) -> str | None:
    """The version before a message, else the one after it."""
    versions = [message.id for message in session.siblings(message_id)]
    place = versions.index(message_id)
    others = versions[:place][-1:] or versions[place + 1 :][:1]
    return others[0] if others else None


def undo(session: Session) -> Deletion | None:
    """Put back what was deleted last, where it stood, and show it as it was shown; return it."""
    if not session.deleted:
        return None
    deletion = session.deleted.pop()
    order = list(session.messages.values())
    # Later deletions were undone before, and what was written since stands behind: the places are right again.
    known = len(deletion.places) == len(deletion.messages)
    for number, message in enumerate(deletion.messages.values()):
        order.insert(deletion.places[number] if known else len(order), message)
    session.messages = {message.id: message for message in order}
    if deletion.head in session.messages:
        session.head = deletion.head
    session.touch()
    return deletion


def fork(session: Session, message_id: str) -> Session:
    """Make a session of the messages down to one, with all settings of the session that it comes from."""
    new = Session.new()
    for message in session.branch(message_id):
        copy = msgspec.structs.replace(message)
        if copy.role == "assistant" and copy.finish is None:
            copy.finish = "interrupted"
        new.messages[copy.id] = copy
    new.head = message_id
    # Nothing may give it a title that does not tell it from the other.
    new.title, new.named_by = _fork_title(session), "user"
    new.system_prompt, new.template, new.model = session.system_prompt, session.template, session.model
    new.sampling, new.preset, new.tags = session.sampling, session.preset, list(session.tags)
    new.origin = Origin(session=session.id, message=message_id)
    return new


def _fork_title(session: Session) -> str:
    if session.title != UNTITLED:
        return session.title.removesuffix(FORKED) + FORKED
    first = next((message.text for message in session.branch() if message.role == "user"), "")
    return title_from(first)
