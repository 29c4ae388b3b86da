"""What the scripted engine is told to do, and its idea of tokens, prompts and KV caches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from quantchat.domain.chat import CONTEXT_FULL, ChatMessage
from quantchat.domain.generation import FinishReason
from quantchat.engine.protocol import Channel, Generate, Partial, RenderedPrompt, RenderPrompt, ServerState, WarmSession
from quantchat.errors import ErrorReport
from scripted_jobs import QuantizeScript

WINDOW = 2048
TOKEN_BYTES = 23_040


class LoadScript(msgspec.Struct, forbid_unknown_fields=True):
    stages: tuple[str, ...] = ("reading weights", "building kernel", "warming up")
    seconds: float = 0.05
    fail: ErrorReport | None = None
    next_kernel: str | None = None
    crash: bool = False
    server: ServerState | None = None


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    match: str | None = None
    model: str = ""
    text: str | None = None
    thinking: str = ""
    tokens_per_second: float = 50.0
    fast_tokens: int = 0
    token_characters: int = 0
    prefill_seconds: float = 0.0
    reason: FinishReason = "stop"
    fail: ErrorReport | None = None
    crash_after_tokens: int | None = None


class Script(msgspec.Struct, forbid_unknown_fields=True):
    ready_delay: float = 0.0
    exit_at_start: int | None = None
    load: LoadScript = msgspec.field(default_factory=LoadScript)
    answers: list[Answer] = []
    window: int = 0
    warm: tuple[int, int] = (4, 2)
    ignore_shutdown: bool = False
    noise: str = ""
    garbage: str = ""
    unload_freed: int = 93 * 1024**2
    quantize: QuantizeScript = msgspec.field(default_factory=QuantizeScript)
    title: Answer = msgspec.field(default_factory=lambda: Answer(text=""))

    def answer_to(self, prompt: str, model: str = "") -> Answer:
        fitting = (a for a in self.answers if a.model in model and (a.match is None or a.match in prompt))
        return next(fitting, Answer())

    def names(self, command: Generate) -> bool:
        """Whether a title is asked for, which is no turn of a session."""
        return not command.session and command.resume is not None and command.resume.text == "Title:"


def read_script() -> Script:
    path = os.environ.get("QUANTCHAT_SCRIPT")
    return msgspec.json.decode(Path(path).read_bytes(), type=Script) if path else Script()


def tokens_of(text: str, characters: int = 0) -> list[str]:
    """Cut a text into tokens that join to the same text: so many characters, or a word with the space before it."""
    if characters:
        return [text[start : start + characters] for start in range(0, len(text), characters)]
    return re.findall(r"\s*\S+|\s+$", text)


def prompt_of(messages: Sequence[ChatMessage]) -> list[str]:
    """The tokens of a prompt; each message takes two beside its words."""
    turns = ([f"<{message.role}>", *tokens_of(message.content), "</>"] for message in messages)
    return [token for turn in turns for token in turn]


def rendered(messages: list[ChatMessage], *, start: bool = True) -> str:
    turns = "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in messages)
    return turns + ("<|im_start|>assistant\n" if start else "")


def inspected(command: RenderPrompt, gone: int, window: int) -> RenderedPrompt:
    """Answer as the real engines do, with words as tokens."""
    # Late: most tests ask for no prompt.
    from quantchat.engine.inspecting import PieceVocabulary, inspect

    text = rendered(without(command.messages, gone))
    pieces = [piece.encode() for piece in re.findall(r"<\|im_\w+\|>|\n|\s*(?:(?!<\|im_)\S)+|\s", text)]
    vocabulary = PieceVocabulary(pieces.__getitem__, {n: p.decode() for n, p in enumerate(pieces) if p[:5] == b"<|im_"})
    found, warnings = inspect(
        text,
        range(len(pieces)),
        command.messages,
        vocabulary,
        render=lambda messages, start: rendered(list(messages), start=start),
        dropped=gone,
        window=window,
    )
    return RenderedPrompt(
        request=command.request, text=text, tokens=len(pieces), window=window, pieces=found, warnings=warnings
    )


def dropped(messages: Sequence[ChatMessage], window: int, reserve: int) -> int:
    """How many of the oldest messages find no room: whole turns, never the system prompt or the last question."""
    talk = [message for message in messages if message.role != "system"]
    system = len(prompt_of([message for message in messages if message.role == "system"]))
    turns = [place for place, message in enumerate(talk) if message.role == "user"] or [0]
    fits = (place for place in turns if system + len(prompt_of(talk[place:])) + reserve <= window)
    return next(fits, turns[-1])


def too_long(tokens: int, window: int) -> ErrorReport:
    """What is said of a question that alone finds no room."""
    detail = f"With the system prompt it has {tokens:,} tokens and the window {window:,}."
    return ErrorReport(code=CONTEXT_FULL, title="The question does not fit the model's context window", detail=detail)


def without(messages: Sequence[ChatMessage], count: int) -> list[ChatMessage]:
    """Leave out the first `count` messages after the system prompt."""
    system = [message for message in messages if message.role == "system"]
    return system + [message for message in messages if message.role != "system"][count:]


def speech(answer: Answer, prompt: str, begun: Partial | None = None) -> Iterator[tuple[Channel, str]]:
    """The tokens of an answer, or its rest; without a text of its own it repeats the prompt."""
    text = f"You said: {prompt}" if answer.text is None else answer.text
    begun = begun or Partial()
    thinking = "" if begun.text else answer.thinking.removeprefix(begun.thinking)
    yield from (("thinking", token) for token in tokens_of(thinking, answer.token_characters))
    yield from (("answer", token) for token in tokens_of(text.removeprefix(begun.text), answer.token_characters))


class Caches:
    """The tokens that are kept of each session; so many sessions wait on the device, so many more in host memory."""

    def __init__(self, device: int, host: int) -> None:
        self._device = device
        self._room = device + host
        self._kept: dict[str, list[str]] = {}

    def reuse(self, command: Generate, prompt: Sequence[str]) -> int:
        """Count the tokens at the start of a prompt that are there; one is always left to compute."""
        kept = self._kept.get(command.session, ())
        differing = (n for n, (old, new) in enumerate(zip(kept, prompt, strict=False)) if old != new)
        return min(next(differing, min(len(kept), len(prompt))), len(prompt) - 1)

    def keep(self, session: str, tokens: list[str]) -> None:
        self._kept.pop(session, None)
        self._kept[session] = tokens
        while len(self._kept) > self._room:
            del self._kept[next(iter(self._kept))]

    def forget(self, session: str) -> None:
        self._kept.pop(session, None)

    def clear(self) -> None:
        self._kept.clear()

    def listing(self) -> tuple[WarmSession, ...]:
        """The sessions, the last used first."""
        return tuple(
            WarmSession(session, len(tokens), len(tokens) * TOKEN_BYTES, self._place(number))
            for number, (session, tokens) in enumerate(reversed(list(self._kept.items())))
        )

    def _place(self, number: int) -> Literal["device", "host"]:
        return "device" if number < self._device else "host"
