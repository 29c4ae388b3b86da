"""The special tokens of a model folder, from all the files that may name them.

What counts follows `tokenization_utils_base.py` of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from quantchat.catalog.files import Folder, RegularFile
from quantchat.catalog.problems import Defect

CONFIG = "tokenizer_config.json"
TOKENIZER_LIMIT = 64 * 1024**2


class Tokens(msgspec.Struct, frozen=True):
    """Special tokens: the named ones that templates may use, and all texts that are one token of their own."""

    named: Mapping[str, str] = {}
    texts: frozenset[str] = frozenset()


class _Added(msgspec.Struct):
    content: str = ""


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_Added] = []


def read_tokens(folder: Folder) -> Tokens:
    """Return the special tokens of a folder; empty where nothing tells."""
    config = folder.json(CONFIG) or {}
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        config = config | (folder.json("special_tokens_map.json") or {})
    named = {key: text for key, value in config.items() if key.endswith("_token") and (text := _content(value))}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    if isinstance(extra, dict):
        named |= {str(key): text for key, value in extra.items() if (text := _content(value))}
    texts = {*named.values(), *_contents(extra if isinstance(extra, list) else ())}
    if isinstance(decoder, dict):
        texts.update(_contents(decoder.values()))
    texts.update(folder.json("added_tokens.json") or {})
    texts.update(token.content for token in _tokenizer_file(folder).added_tokens)
    return Tokens(named, frozenset(text for text in texts if text))


def _content(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _contents(values: Iterable[object]) -> Iterator[str]:
    return filter(None, map(_content, values))


def _tokenizer_file(folder: Folder) -> _TokenizerFile:
    if "tokenizer.json" not in folder:
        return _TokenizerFile()
    try:
        with RegularFile(folder.join("tokenizer.json")) as file:
            return msgspec.json.decode(file.read(file.size if file.size <= TOKENIZER_LIMIT else 0), type=_TokenizerFile)
    except (Defect, msgspec.MsgspecError, ValueError, RecursionError):
        return _TokenizerFile()
