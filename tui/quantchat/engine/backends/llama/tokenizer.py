"""The vocabulary and template of a GGUF file, with the calls of transformers' tokenizers that the engine makes."""

from __future__ import annotations

import codecs
import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from quantchat.engine.backends.llama.library import api
from quantchat.engine.decode import TextDecoder
from quantchat.engine.override import render_override
from quantchat.engine.vocabulary import PieceVocabulary, ends_of

SENTENCEPIECE = 1
PIECE_BYTES = 64
"""Most tokens are shorter; longer ones are asked for a second time."""
SPACE = b" "


class LlamaTokenizer:
    """Text to ids and back.

    Attributes:
        chat_template: Of the file; empty without one.
        is_fast: It tells where tokens stand in a text.
    """

    is_fast = True

    def __init__(self, model: Any) -> None:
        self._vocabulary = api.llama_model_get_vocab(model)
        self.chat_template = (api.llama_model_chat_template(model, None) or b"").decode("utf-8", "replace")
        # Its vocabularies write a space before a text, which the text does not have.
        spaced = _metadata(model, "tokenizer.ggml.add_space_prefix") != "false"
        self._hides_space = api.llama_vocab_type(self._vocabulary) == SENTENCEPIECE and spaced
        self.size = int(api.llama_vocab_n_tokens(self._vocabulary))
        # Asked for a hundred times in a turn: the ids of tags, and the pieces of common tokens.
        self.convert_tokens_to_ids = lru_cache(maxsize=512)(self._single)
        self.piece = lru_cache(maxsize=self.size)(self._piece)

    def __call__(self, text: str, *, return_offsets_mapping: bool = False, **_: Any) -> dict[str, list[Any]]:
        """Tokenize; special tokens in the text are taken as such, and none is added."""
        ids = self.encode(text)
        if not return_offsets_mapping:
            return {"input_ids": ids}
        ends = ends_of(text, [self.piece(token) for token in ids], {name.encode() for name in self.specials.values()})
        return {"input_ids": ids, "offset_mapping": list(zip([0, *ends], ends, strict=False))}

    def encode(self, text: str, **_: Any) -> list[int]:
        """Tokenize, as a call does."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16
        found = (api.llama_token * room)()
        count = api.llama_tokenize(self._vocabulary, raw, len(raw), found, room, False, True)
        return list(found[: max(count, 0)])

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Read ids."""
        hidden = self.all_special_ids if skip_special_tokens else ()
        raw = b"".join(self.piece(token) for token in ids if token not in hidden)
        return self._shown(raw).decode("utf-8", "replace")

    def _shown(self, raw: bytes) -> bytes:
        return raw[1:] if self._hides_space and raw.startswith(SPACE) else raw

    def stream_decoder(self) -> TextDecoder:
        """Return a decoder for one answer."""
        return PieceDecoder(self)

    def spoken_piece(self, token: int, *, first: bool) -> bytes:
        """Return what a token says: nothing if it is a special one."""
        if token in self.all_special_ids:
            return b""
        return self._shown(self.piece(token)) if first else self.piece(token)

    def _piece(self, token: int) -> bytes:
        size = PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = api.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _single(self, text: str) -> int | None:
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 and self.piece(ids[0]) == text.encode() else None

    @cached_property
    def all_special_ids(self) -> frozenset[int]:
        """Tokens with a meaning of their own, which answers do not show."""
        return frozenset(self.specials)

    @cached_property
    def specials(self) -> Mapping[int, str]:
        """Those, with their names."""
        control = (token for token in range(self.size) if api.llama_vocab_is_control(self._vocabulary, token))
        return {token: self.piece(token).decode("utf-8", "replace") for token in control}

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(token for token in range(self.size) if api.llama_vocab_is_eog(self._vocabulary, token))

    @cached_property
    def bos(self) -> int | None:
        """The token that a text starts with."""
        return _known(api.llama_vocab_bos(self._vocabulary))

    @cached_property
    def special_tokens_map(self) -> dict[str, str]:
        """What templates call by these names."""
        named = {
            "bos_token": self.bos,
            "eos_token": _known(api.llama_vocab_eos(self._vocabulary)),
            "pad_token": _known(api.llama_vocab_pad(self._vocabulary)),
        }
        return {
            name: "" if token is None else self.piece(token).decode("utf-8", "replace") for name, token in named.items()
        }

    def vocabulary(self) -> PieceVocabulary:
        """Return what a prompt's inspection asks."""
        adds = bool(api.llama_vocab_get_add_bos(self._vocabulary))
        return PieceVocabulary(self.piece, self.specials, self.bos, adds_bos=adds)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        **_: Any,
    ) -> str:
        """Render a conversation by a template, the file's own without one; it runs in the sandbox of overrides."""
        template = chat_template or self.chat_template
        return render_override(template, messages, self.special_tokens_map, generation_prompt=add_generation_prompt)


class PieceDecoder:
    """Puts the bytes of tokens together to characters; constant work per token."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._first = True

    def step(self, token: int) -> str:
        """Take one token and return the text that it completes."""
        piece = self._tokenizer.spoken_piece(token, first=self._first)
        self._first = self._first and not piece
        return self._decode(piece)


def _known(token: int) -> int | None:
    return token if token >= 0 else None


def _metadata(model: Any, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    length = api.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
