"""The pieces of an answer as servers stream them, whatever each calls its parts."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from quantchat.domain.text import without_surrogates
from quantchat.domain.thinking import Piece
from quantchat.engine.backends.server.faults import said_in

_STOPPED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"})
_CUT = frozenset({"length", "max_tokens", "model_length"})


class _Delta(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    prompt_cache_hit_tokens: int | None = None


class _Timings(msgspec.Struct):
    """What llama.cpp tells with each piece, if it is asked to."""

    cache_n: int | None = None
    prompt_n: int | None = None
    predicted_n: int | None = None


class Progress(msgspec.Struct):
    """How much of a prompt llama.cpp has computed; `cache` tokens of it came from its cache."""

    total: int = 0
    processed: int = 0
    cache: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    prompt_progress: Progress | None = None
    error: Any = None
    detail: Any = None


class Counts(msgspec.Struct, frozen=True):
    """Tokens, as far as they were told."""

    prompt: int | None = None
    new: int | None = None
    reused: int | None = None

    def updated(self, later: Counts) -> Counts:
        """Return these with what later ones tell."""
        told = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        return msgspec.structs.replace(self, **told)


class Chunk(msgspec.Struct, frozen=True):
    """A piece of an answer.

    Attributes:
        pieces: What was said; thinking that came in a field of its own is told apart.
        finish: `stop`, `length`, the server's own word for another reason, or empty.
        error: What the server says went wrong.
    """

    pieces: tuple[Piece, ...] = ()
    finish: str = ""
    counts: Counts = Counts()
    progress: Progress | None = None
    error: str = ""


_decode = msgspec.json.Decoder(_Chunk).decode


def read_chunk(data: bytes) -> Chunk:
    """Read the data of one event, or an answer that was not streamed.

    Raises:
        ValueError: if it is no such thing.
    """
    try:
        raw = _parsed(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a piece that cannot be read: {error}") from error
    if raw.error or (raw.detail and not raw.choices):
        return Chunk(error=said_in({"error": raw.error} if raw.error else {"detail": raw.detail}) or "an error")
    choice = raw.choices[0] if raw.choices else _Choice()
    said = choice.delta or choice.message or _Delta()
    reason = choice.finish_reason or ""
    finish = "stop" if reason in _STOPPED else "length" if reason in _CUT else reason
    return Chunk(tuple(_pieces(said)), finish, _counts(raw), raw.prompt_progress)


def _parsed(data: bytes) -> _Chunk:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Half a character, as some servers send when a token ends in the middle of one, must not end the answer.
        loose = json.loads(data.decode(errors="replace"))
        return msgspec.convert(without_surrogates(loose), _Chunk)


def _pieces(said: _Delta) -> list[Piece]:
    thinking = said.reasoning_content or said.reasoning
    pieces: list[Piece] = [("thinking", thinking)] if thinking else []
    if isinstance(said.content, list):
        return pieces + [piece for part in said.content for piece in _part(part)]
    return pieces + ([("answer", said.content)] if said.content else [])


def _part(part: dict[str, Any]) -> list[Piece]:
    """A part of a content that is a list, as Mistral's models send it."""
    match part:
        case {"type": "text", "text": str(text)}:
            return [("answer", text)]
        case {"type": "thinking", "thinking": list(parts)}:
            return [("thinking", str(each.get("text", ""))) for each in parts if isinstance(each, dict)]
        case _:
            return []


def _counts(raw: _Chunk) -> Counts:
    counts = Counts()
    if timings := raw.timings:
        known = timings.prompt_n is not None
        prompt = (timings.prompt_n or 0) + (timings.cache_n or 0) if known else None
        counts = Counts(prompt, timings.predicted_n, timings.cache_n)
    if usage := raw.usage:
        details = usage.prompt_tokens_details
        cached = details.cached_tokens if details is not None else usage.prompt_cache_hit_tokens
        counts = counts.updated(Counts(usage.prompt_tokens, usage.completion_tokens, cached))
    return counts
