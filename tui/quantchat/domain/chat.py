"""Conversations: a tree of messages, and the session that holds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from quantchat.domain.attachments import Draft
from quantchat.domain.generation import FinishReason, SamplingOverrides, SamplingSettings, TurnStatistics
from quantchat.errors import ErrorReport

SCHEMA = 3
UNTITLED = "New session"
TITLE_LENGTH = 48
CONTEXT_FULL = "context-full"

Role = Literal["system", "user", "assistant"]
NamedBy = Literal["rule", "model", "user"]
"""Who gave a session its title: the first words of its first prompt, a model, or the user; that one nothing changes."""


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


class _Ticks:
    """Moments of this process, one after the other, whatever happens to the clock; apart by what an id can tell."""

    STEP = timedelta(milliseconds=1)

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def next(self, after: datetime | None = None) -> datetime:
        """Return a moment behind all that were returned, and behind `after`, which may lie in the future."""
        with self._lock:
            self._last = max(utc_now(), self._last + self.STEP)
            return self._last if after is None else max(self._last, after + self.STEP)


_ticks = _Ticks()


def new_id(now: datetime | None = None) -> str:
    """Make an identifier that sorts by time: `20261121T035912123-a1b2c3`; each sorts behind the one before."""
    moment = now or _ticks.next()
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}-{os.urandom(3).hex()}"


class RunCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which model wrote an answer (of one that was continued: its end), and how.

    Attributes:
        revision: Commit of the hub that the model was downloaded at, if it was.
        decoding: How tokens were computed: `graph`, `eager` or `generate`.
        versions: Of the engine's libraries, by name.
    """

    model: str
    path: str = ""
    revision: str = ""
    quantization: str = ""
    kernel: str = ""
    device: str = ""
    decoding: str = ""
    sampling: SamplingSettings | None = None
    versions: dict[str, str] = {}


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of the tree.

    Attributes:
        parent: The message that this one follows; None for the first.
        thinking: What the model thought before the answer; later turns are asked without it.
        finish: Why an answer ended; None for the user's words and while an answer streams.
        error: What failed, when `finish` is `error`.
        edited_from: The message that this one is a changed copy of, beside which it stands.
        given: What the user wrote as the beginning of an answer; `text` starts with it.
    """

    id: str
    role: Role
    text: str
    created: datetime
    parent: str | None = None
    thinking: str = ""
    finish: FinishReason | None = None
    error: ErrorReport | None = None
    run: RunCard | None = None
    statistics: TurnStatistics | None = None
    edited_from: str | None = None
    given: str = ""


class Deletion(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Messages that were taken out of a session and can be put back.

    Attributes:
        head: The head of the session before.
        places: Where each message stood among all of the session, in the order of `messages`.
    """

    when: datetime
    messages: dict[str, Message]
    head: str | None = None
    places: list[int] = []


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a session comes from: a message of another one, or a file.

    Attributes:
        source: Of an imported session: the file's format and name.
    """

    session: str = ""
    message: str = ""
    source: str = ""


class ChatMessage(msgspec.Struct, frozen=True):
    """A message as the engine sees it: role and text."""

    role: Role
    content: str


class Session(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One conversation: all messages ever written, and the head that is shown.

    Regenerating and editing add siblings; nothing is overwritten.

    Attributes:
        version: Schema version of the file.
        head: The last message of the branch that is shown; None for an empty session.
        preset: Name of the preset that `sampling` came from; empty for none.
        queued: Prompts that were sent while the engine was busy and have not started.
        draft: Text in the prompt that was not sent, its attachments in full.
        draft_words: That prompt as it was written, with tokens in place of its attachments, if it has any.
        named_by: Who gave the title.
        template: A Jinja chat template that is used in place of the model's own; empty for that.
        deleted: What was deleted and can be put back, the last deletion last.
        edits: Texts that were not sent: changes by the message's id, beginnings of answers by `begin:` and the
            question's id.
    """

    version: int = SCHEMA
    id: str
    title: str = UNTITLED
    created: datetime
    updated: datetime
    messages: dict[str, Message] = {}
    head: str | None = None
    system_prompt: str = ""
    model: str | None = None
    sampling: SamplingOverrides = SamplingOverrides()
    preset: str = ""
    queued: list[str] = []
    draft: str = ""
    draft_words: str = ""
    named_by: NamedBy = "rule"
    tags: list[str] = []
    pinned: bool = False
    archived: bool = False
    template: str = ""
    origin: Origin | None = None
    deleted: list[Deletion] = []
    edits: dict[str, str] = {}

    @classmethod
    def new(cls) -> Session:
        """Start an empty session."""
        now = _ticks.next()
        return cls(id=new_id(now), created=now, updated=now)

    def written(self) -> Draft:
        """Return the draft with its tokens where the user put them."""
        folded = Draft.folded(self.draft)
        exact = Draft(self.draft_words, folded.attachments)
        # Prompts that were taken back stand behind the draft; there the tokens are those of their blocks.
        return exact if exact.expanded() == self.draft else folded

    def write(self, draft: Draft) -> None:
        """Keep what stands in the prompt."""
        self.draft = draft.expanded()
        self.draft_words = draft.text if draft.attachments else ""

    def branch(self, head: str | None = None) -> list[Message]:
        """Return the messages from the first to `head` (default: the head that is shown)."""
        return list(self._upwards(head or self.head))[::-1]

    def _upwards(self, leaf: str | None) -> Iterator[Message]:
        seen: set[str] = set()
        while leaf is not None and leaf in self.messages and leaf not in seen:
            seen.add(leaf)
            message = self.messages[leaf]
            yield message
            leaf = message.parent

    def append(self, role: Role, text: str, *, parent: str | msgspec.UnsetType | None = msgspec.UNSET) -> Message:
        """Add a message below `parent` (default: the head; None: as a first message) and make it the head."""
        below = self.head if parent is msgspec.UNSET else parent
        now = self.touch()
        message = Message(id=new_id(now), role=role, text=text, created=now, parent=below)
        self.messages[message.id] = message
        self.head = message.id
        if role == "user" and self.title == UNTITLED:
            self.title = title_from(text)
        return message

    def touch(self) -> datetime:
        """Note that the session changes now, and return that moment: later than any before, whatever the clock says."""
        self.updated = _ticks.next(after=self.updated)
        return self.updated

    def siblings(self, message_id: str) -> list[Message]:
        """Return all versions of a message, itself included, oldest first."""
        parent = self.messages[message_id].parent
        return [message for message in self.messages.values() if message.parent == parent]

    def unfinished(self) -> Message | None:
        """Return the last answer if it was cut off and can go on."""
        last = self.messages.get(self.head or "")
        if last is None or last.role != "assistant" or last.parent not in self.messages:
            return None
        cut = last.finish is not None and last.finish != "stop"
        return last if cut and (last.text or last.thinking) else None

    def restore_queued(self) -> None:
        """Move prompts that never started into the draft, after what is there."""
        self.draft = "\n\n".join(part for part in (self.draft, *self.queued) if part)
        self.queued = []

    def prompt(self, head: str | None = None) -> list[ChatMessage]:
        """Return what the model is asked with: the system prompt and the messages down to `head`."""
        system = [ChatMessage("system", self.system_prompt)] if self.system_prompt else []
        return system + [ChatMessage(message.role, message.text) for message in self.asked(head)]

    def asked(self, head: str | None = None) -> list[Message]:
        """Return the messages down to `head` that the model is asked with.

        A question that alone was too long for the context window, and so has no answer, is left out: it would make
        every later one too long as well.
        """
        branch = self.branch(head)
        full = (m for m in branch if m.error and m.error.code == CONTEXT_FULL)
        refused = {message.parent for message in full if not (message.text or message.thinking)}
        return [message for message in branch if message.text and message.id not in refused]


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session as a row of the list; `temporary` for one that is in memory alone."""

    id: str
    title: str
    updated: datetime
    messages: int
    created: datetime
    pinned: bool = False
    archived: bool = False
    tags: tuple[str, ...] = ()
    temporary: bool = False

    @classmethod
    def of(cls, session: Session) -> SessionSummary:
        """Return the row of a session."""
        return cls(
            id=session.id,
            title=session.title,
            updated=session.updated,
            messages=len(session.messages),
            created=session.created,
            pinned=session.pinned,
            archived=session.archived,
            tags=tuple(session.tags),
        )


def title_from(text: str) -> str:
    """Make a title from the first words of a prompt."""
    line = " ".join(Draft.folded(text).text.split())
    if len(line) <= TITLE_LENGTH:
        return line or UNTITLED
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"
