"""Titles by the loaded model: made from the first exchange while nobody wants anything of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec

from quantchat.domain.chat import TITLE_LENGTH, ChatMessage, Session, new_id
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.text import clean, shortened
from quantchat.engine import protocol
from quantchat.engine.protocol import EngineExited
from quantchat.errors import QuantchatError, UsageError
from quantchat.services.archive import Archive
from quantchat.services.conversation import Conversation
from quantchat.services.facts import Fact, Listener, Notice, SessionChanged, SessionsChanged
from quantchat.services.library import Library, Phase

IDLE_SECONDS = 2.0
"""The engine must have rested for so long: who reads an answer often asks on at once."""
TRIES = 3
MOST_WORDS = 9
MOST_TOKENS = 24
SAID = 400
"""Characters of the question and of the answer that the model is shown: a title needs no more, and reads fast."""
INSTRUCTION = (
    "Write a short title, three to six words, for the conversation below, in its language. "
    "Answer with the title alone, without quotes.\n\n"
    "User: {question}\n\nAssistant: {answer}"
)
BEGUN = "Title:"
"""The answer's beginning is given: a small model then writes a title and no sentence, one that thinks does not."""
_AROUND = " \t\"'`*_#“”„«»‘’.:;-–—"
_LABEL = re.compile(r"^(title|titel|titre|título)\s*[:：-]\s*", re.IGNORECASE)


class _Job(msgspec.Struct, kw_only=True):
    """A title that is wanted; `turn` while it is written, and `asked` if the user wants it."""

    session: str
    prompt: str
    asked: bool = False
    turn: str = ""
    text: str = ""


class Titles:
    """Gives sessions whose titles nobody chose better ones, and stops at once when the engine is needed.

    Args:
        automatic: Whether it is done without being asked for.
    """

    def __init__(
        self,
        archive: Archive,
        library: Library,
        conversation: Conversation,
        listener: Listener,
        *,
        automatic: bool = True,
    ) -> None:
        self._archive, self._library, self._conversation = archive, library, conversation
        self._listen = listener
        self._automatic = automatic
        self._tries: dict[str, int] = {}
        self._waiting: dict[str, _Job] = {}
        self._job: _Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._naming: set[asyncio.Task[None]] = set()

    @property
    def writing(self) -> str | None:
        """Id of the session that gets a title just now."""
        return self._job.session if self._job is not None else None

    def ask(self, session_id: str) -> None:
        """Let the model write a title now, in place of any other.

        Raises:
            UsageError: if there is nothing to name, or no model that is free to do it.
            SessionLocked: if another process writes the session.
        """
        self._archive.require_writable(session_id)
        prompt = _prompt(self._archive.open(session_id))
        if not prompt:
            raise UsageError("There is nothing to name yet", remedy="Ask something first, or type /rename and a title")
        if not self._is_free:
            raise UsageError("No model is free to write a title", remedy="Load one with Ctrl+L, or wait for the answer")
        self._stop()
        self._begin(_Job(session=session_id, prompt=prompt, asked=True))

    def close(self) -> None:
        """Begin no more."""
        self._automatic = False
        self._waiting.clear()
        self._stop()
        self._cancel_timer()

    # What happens

    def on_fact(self, fact: Fact) -> None:
        """Hear what happens to sessions, before the engine is told to do anything about it."""
        if not isinstance(fact, SessionChanged):
            return
        if self._conversation.busy or self._conversation.waiting:
            self._stop()
        if fact.answered and self._automatic:
            self._want(fact.session)
        if self._waiting:
            self._rest()

    def on_event(self, event: protocol.Event | EngineExited) -> None:
        """Take what the engine says of the title that it writes."""
        job = self._job
        match event:
            case EngineExited():
                self._job = None
            case protocol.Loaded() if self._waiting:
                self._rest()
            case protocol.Delta() if job is not None and event.turn == job.turn:
                self._hear(job, event)
            case protocol.Finished() if job is not None and event.turn == job.turn:
                # One that was cut, or stopped as the model goes, is half a title.
                self._end(job, job.text if event.reason == "stop" else "")
            case protocol.Failed() if job is not None and event.turn == job.turn:
                self._end(job, "")
            case _:
                return

    def _hear(self, job: _Job, event: protocol.Delta) -> None:
        """Take text of a title, up to the end of its line."""
        if event.channel != "answer":
            return
        job.text += event.text
        line, end, _ = job.text.lstrip().partition("\n")
        if end:
            self._tell_engine_to_stop(job)
            self._end(job, line)

    # One after the other

    def _want(self, session_id: str) -> None:
        """Put a session whose title came from a rule behind those that wait."""
        if self._tries.get(session_id, 0) >= TRIES:
            return
        with contextlib.suppress(QuantchatError):
            session = self._archive.open(session_id)
            if session.named_by == "rule" and (prompt := _prompt(session)):
                self._waiting[session_id] = _Job(session=session_id, prompt=prompt)

    @property
    def _is_free(self) -> bool:
        conversation = self._conversation
        return self._library.phase is Phase.LOADED and not conversation.busy and not conversation.waiting

    def _rest(self) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._look)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Begin with the session that waited longest, if nothing else goes on."""
        self._timer = None
        if self._waiting and self._is_free and self._job is None:
            job = self._waiting.pop(next(iter(self._waiting)))
            self._tries[job.session] = self._tries.get(job.session, 0) + 1
            self._begin(job)

    def _begin(self, job: _Job) -> None:
        job.turn, job.text = new_id(), ""
        sampling = SamplingSettings(temperature=0.0, max_new_tokens=MOST_TOKENS)
        # Without a session the engine keeps nothing: no other session's cache makes room for this.
        command = protocol.Generate(
            turn=job.turn,
            messages=[ChatMessage("user", job.prompt)],
            sampling=sampling,
            resume=protocol.Partial(text=BEGUN),
        )
        with contextlib.suppress(QuantchatError):
            self._library.send(command)
            self._job = job

    def _stop(self) -> None:
        """Give the engine back; an automatic title is tried again when it rests."""
        job, self._job = self._job, None
        if job is None:
            return
        self._tell_engine_to_stop(job)
        if self._automatic and not job.asked and self._tries.get(job.session, 0) < TRIES:
            self._waiting.setdefault(job.session, job)

    def _tell_engine_to_stop(self, job: _Job) -> None:
        with contextlib.suppress(QuantchatError):
            self._library.send(protocol.Stop(turn=job.turn))

    def _end(self, job: _Job, text: str) -> None:
        self._job = None
        title = title_of(text)
        if title:
            naming = asyncio.ensure_future(self._name(job, title))
            self._naming.add(naming)
            naming.add_done_callback(self._naming.discard)
        elif job.asked:
            report = UsageError("The model wrote no title", remedy="F2 gives one of your own").report
            self._listen(Notice(report=report, severity="warning"))
        if self._waiting:
            self._rest()

    async def _name(self, job: _Job, title: str) -> None:
        """Give a title, unless the user has named or deleted the session meanwhile."""

        def change(session: Session) -> None:
            if job.asked or session.named_by == "rule":
                session.title, session.named_by = title, "model"

        with contextlib.suppress(QuantchatError):
            await self._archive.amend(job.session, change)
            self._listen(SessionsChanged())


def _prompt(session: Session) -> str:
    """What the model is asked with to name a session; empty if its first question has no answer yet."""
    branch = session.branch()
    question = next((message for message in branch if message.role == "user" and message.text.strip()), None)
    answer = next((message for message in branch if message.role == "assistant" and message.text.strip()), None)
    if question is None or answer is None or answer.finish in (None, "error"):
        return ""
    return INSTRUCTION.format(question=shortened(question.text, SAID), answer=shortened(answer.text, SAID))


def title_of(text: str) -> str:
    """Make a title of what a model said; empty if that is none."""
    lines = [line for line in clean(text).splitlines() if line.strip(_AROUND)]
    line = " ".join(lines[0].split()) if lines else ""
    title = _LABEL.sub("", line.strip(_AROUND)).strip(_AROUND)
    if not title or len(title.split()) > MOST_WORDS or len(title) > TITLE_LENGTH:
        return ""
    return title[:1].upper() + title[1:]
