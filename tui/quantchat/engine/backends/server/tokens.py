"""What servers tell of tokens: how many a conversation has, and how the prompt reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from openai import APIError

from quantchat.domain.chat import ChatMessage
from quantchat.domain.thinking import Tag
from quantchat.engine.backends.server.faults import fault_of
from quantchat.engine.backends.server.served import Served
from quantchat.engine.inspecting import PieceVocabulary
from quantchat.engine.thinking import opened_by
from quantchat.errors import GenerationError

SECONDS = 4.0
"""The worker waits for these answers."""
_SPECIAL = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]{2,}\]|<｜[^<>]+｜>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"


class Prompt(msgspec.Struct, frozen=True):
    """A prompt as the server makes it.

    Attributes:
        pieces: The bytes of each token by its id; special ones as their names.
        specials: Those with a meaning of their own.
    """

    text: str
    ids: list[int]
    pieces: dict[int, bytes]
    specials: dict[int, str]

    def vocabulary(self) -> PieceVocabulary:
        """The tokens that occur in it."""
        return PieceVocabulary(piece=lambda token: self.pieces.get(token, b""), specials=self.specials)


def rows(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Write a conversation as the API has it."""
    return [{"role": message.role, "content": message.content} for message in messages]


def can_count(served: Served) -> bool:
    """Whether the server tells how many tokens a conversation has."""
    return served.dialect.tokens in ("vllm", "llama.cpp")


async def count(served: Served, messages: Sequence[ChatMessage]) -> int:
    """Count the tokens of a conversation as the server would see it.

    Raises:
        GenerationError: if it cannot tell.
        ServerFault: if it does not answer.
    """
    if served.dialect.tokens == "vllm":
        answer = await _ask(served, "/tokenize", _conversation(served, messages))
        return _counted(served, answer.get("count"))
    return len((await _llama_tokens(served, await _llama_text(served, messages)))[0])


async def prompt_of(served: Served, messages: Sequence[ChatMessage]) -> Prompt:
    """Fetch the exact prompt and its tokens, as `count`."""
    if served.dialect.tokens == "vllm":
        body = _conversation(served, messages) | {"return_token_strs": True}
        answer = await _ask(served, "/tokenize", body)
        ids, words = answer.get("tokens") or [], answer.get("token_strs") or []
        return _prompt(await _vllm_text(served, ids), ids, [_piece(str(word)) for word in words])
    text = await _llama_text(served, messages)
    return _prompt(text, *await _llama_tokens(served, text))


async def text_of(served: Served, messages: Sequence[ChatMessage], *, generation_prompt: bool = True) -> str:
    """Fetch the text of a prompt alone, with or without the start of an answer, as `count`."""
    if served.dialect.tokens == "vllm":
        body = _conversation(served, messages) | {"add_generation_prompt": generation_prompt}
        return await _vllm_text(served, (await _ask(served, "/tokenize", body)).get("tokens") or [])
    return await _llama_text(served, messages, generation_prompt=generation_prompt)


async def opened_tag(served: Served) -> Tag | None:
    """Find out whether the server's template begins answers inside a block of thinking."""
    if not can_count(served):
        return None
    asked = [ChatMessage("user", "Hello")]
    try:
        return opened_by(await text_of(served, asked), asked)
    except Exception:  # noqa: BLE001 - a server that does not tell still answers
        return None


async def text_tokens(served: Served, text: str) -> list[int]:
    """Return the ids of a text by itself.

    Raises:
        GenerationError: if the server cannot tell.
        ServerFault: if it does not answer.
    """
    match served.dialect.tokens:
        case "vllm":
            answer = await _ask(
                served, "/tokenize", {"model": served.name, "prompt": text, "add_special_tokens": False}
            )
            return [int(token) for token in answer.get("tokens", ())]
        case "llama.cpp":
            return (await _llama_tokens(served, text, special=False))[0]
        case "extras":
            # It begins every text with the start token, if the model has one.
            start = (await _ask(served, "/extras/tokenize", {"input": ""})).get("tokens", [])
            whole = (await _ask(served, "/extras/tokenize", {"input": text})).get("tokens", [])
            return [int(token) for token in whole[len(start) :]]
        case _:
            raise untold(served)


def untold(served: Served) -> GenerationError:
    """Say that a server does not tell tokens."""
    return GenerationError(
        "This server does not tell its tokens",
        f"{served.dialect.label} at {served.connection.host} shows neither the prompt nor how many tokens it has.",
        "After an answer its statistics say how many there were.",
        code="server-cannot",
    )


def _conversation(served: Served, messages: Sequence[ChatMessage]) -> dict[str, Any]:
    return {"model": served.name, "messages": rows(messages), "add_generation_prompt": True}


async def _ask(served: Served, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await served.connection.post(path, body, SECONDS)
    except (APIError, OSError, ValueError) as error:
        fault = fault_of(error, served.connection)
        # What the server said may hold the key, and the log shows causes.
        raise (untold(served) if fault.status in (404, 405, 501) else fault) from None
    if not isinstance(answer, dict):
        raise untold(served)
    return answer


async def _vllm_text(served: Served, ids: Sequence[int]) -> str:
    return str((await _ask(served, "/detokenize", {"model": served.name, "tokens": ids})).get("prompt", ""))


async def _llama_text(served: Served, messages: Sequence[ChatMessage], *, generation_prompt: bool = True) -> str:
    body = {"messages": rows(messages), "add_generation_prompt": generation_prompt}
    text = (await _ask(served, "/apply-template", body)).get("prompt")
    if not isinstance(text, str):
        raise untold(served)
    return text


async def _llama_tokens(served: Served, text: str, *, special: bool = True) -> tuple[list[int], list[bytes]]:
    body = {"content": text, "add_special": special, "parse_special": special, "with_pieces": True}
    tokens = (await _ask(served, "/tokenize", body)).get("tokens")
    if not isinstance(tokens, list):
        raise untold(served)
    whole = [token for token in tokens if isinstance(token, dict)]
    return [int(token["id"]) for token in whole], [_bytes(token.get("piece", "")) for token in whole]


def _bytes(piece: object) -> bytes:
    return bytes(piece) if isinstance(piece, list) else str(piece).encode()


def _counted(served: Served, count: object) -> int:
    if not isinstance(count, int):
        raise untold(served)
    return count


def _prompt(text: str, ids: list[int], pieces: list[bytes]) -> Prompt:
    known = dict(zip(ids, pieces, strict=False))
    names = {token: piece.decode(errors="replace") for token, piece in known.items()}
    specials = {token: name for token, name in names.items() if _SPECIAL.fullmatch(name) and name in text}
    return Prompt(text, ids, known, specials)


def _piece(word: str) -> bytes:
    """Read a token as vocabularies write it: bytes as letters of GPT-2's alphabet, or a mark for spaces."""
    if found := _BYTE.fullmatch(word):
        return bytes([int(found[1], 16)])
    if _SPACE in word:
        return word.replace(_SPACE, " ").encode()
    alphabet = _alphabet()
    if all(letter in alphabet for letter in word):
        return bytes(alphabet[letter] for letter in word)
    return word.encode()


@cache
def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}
