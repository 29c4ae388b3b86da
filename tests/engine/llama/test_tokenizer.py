"""The vocabulary of a GGUF file: text to ids and back, where tokens stand, characters that are several tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.llama import tiny_gguf
from quantchat.engine.backends.llama.library import api, start
from quantchat.engine.backends.llama.tokenizer import LlamaTokenizer

TEXTS = ["the other feathers", "Zwölf 日本語 🙂 done", "<|user|>hi</s>\n", "", "a\x00b", "<think>x</think>"]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Iterator[LlamaTokenizer]:
    words = start()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    model = api.llama_model_load_from_file(str(tiny).encode(), parameters)
    assert model, words.text
    yield LlamaTokenizer(model)
    api.llama_model_free(model)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(tokenizer: LlamaTokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_cover_the_text_without_a_gap(tokenizer: LlamaTokenizer, text: str) -> None:
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    edges = found["offset_mapping"]
    assert len(edges) == len(found["input_ids"])
    assert "".join(text[start:end] for start, end in edges) == text


def test_a_character_comes_out_once_it_is_whole(tokenizer: LlamaTokenizer) -> None:
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.step(token) for token in tokenizer.encode("a日🙂b")]
    assert pieces == ["a", "", "", "日", "", "", "", "🙂", "b"]


def test_special_tokens_say_nothing(tokenizer: LlamaTokenizer) -> None:
    ids = tokenizer.encode("<|user|>hi</s>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hi"
    decoder = tokenizer.stream_decoder()
    assert "".join(decoder.step(token) for token in ids) == "hi"
    assert tokenizer.convert_tokens_to_ids("<|user|>") == tiny_gguf.SPECIALS.index("<|user|>")
    assert tokenizer.convert_tokens_to_ids("no such token") is None


def test_templates_know_the_special_tokens(tokenizer: LlamaTokenizer) -> None:
    assert tokenizer.special_tokens_map["bos_token"] == "<s>"
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert text == "<s><|user|>hi</s><|assistant|>"
