"""What servers tell of tokens: counts and prompts, and conversations that are made to fit by them."""

from __future__ import annotations

import re

import msgspec
import pytest

from bad_server import Act, BadServer
from engine.rig import asking
from engine.servers.rig import PLAIN, ServerRig
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p
from quantchat.engine.backends.server.tokens import _piece

START = "<|im_start|>assistant\n"
TEXT = f"<|im_start|>user\nWhat is it?<|im_end|>\n{START}"
_WORD = re.compile(r"<\|\w+\|>| ?\w+|\n|.")


class Template:
    """What servers make of conversations: ChatML, and a token for each word; `start` begins answers."""

    def __init__(self, start: str) -> None:
        self._start = start
        self._known: list[str] = []

    def text(self, body) -> str:
        said = "".join(f"<|im_start|>{row['role']}\n{row['content']}<|im_end|>\n" for row in body["messages"])
        return said + (self._start if body.get("add_generation_prompt", True) else "")

    def ids(self, text: str) -> list[int]:
        words = _WORD.findall(text)
        self._known += dict.fromkeys(word for word in words if word not in self._known)
        return [self._known.index(word) for word in words]

    def words(self, ids: list[int]) -> list[str]:
        return [self._known[number] for number in ids]


def as_vllm(server: BadServer, start: str = START) -> None:
    """Tell tokens as vLLM does; of each message two more than words are counted."""
    template = Template(start)

    def tokenize(body):
        ids = template.ids(template.text(body))
        strs = [word.replace(" ", "Ġ").replace("\n", "Ċ") for word in template.words(ids)]
        count = sum(len(m["content"].split()) + 2 for m in body["messages"])
        told = {"token_strs": strs} if body.get("return_token_strs") else {}
        return {"count": count, "tokens": ids, "max_model_len": 300} | told

    server.pages |= {
        "/tokenize": tokenize,
        "/detokenize": lambda body: {"prompt": "".join(template.words(body["tokens"]))},
    }
    server.models = [{"id": "tiny", "max_model_len": 300}]


def as_llama_cpp(server: BadServer, start: str = START) -> None:
    """Tell tokens as llama.cpp's own server does."""
    template = Template(start)

    def tokenize(body):
        ids = template.ids(body["content"])
        return {
            "tokens": [{"id": number, "piece": word} for number, word in zip(ids, template.words(ids), strict=True)]
        }

    server.owner = "llamacpp"
    server.models = [{"id": "tiny", "meta": {"n_ctx_train": 300}}]
    server.pages |= {"/apply-template": lambda body: {"prompt": template.text(body)}, "/tokenize": tokenize}


@pytest.mark.parametrize("kind", [as_vllm, as_llama_cpp])
def test_the_prompt_is_shown_with_its_tokens(asker: ServerRig, server: BadServer, kind) -> None:
    kind(server)
    assert isinstance(asker.use(server.url), p.Loaded)
    asker.worker.submit(p.RenderPrompt(request="r", messages=asking("What is it?")))
    shown = asker.wait(p.RenderedPrompt, p.RequestFailed)
    assert (shown.text, shown.tokens, shown.window) == (TEXT, 12, 300)
    assert [piece.text for piece in shown.pieces if piece.special] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert "".join(piece.text for piece in shown.pieces) == TEXT
    (own,) = [piece for piece in shown.pieces if piece.message == 0]
    assert (own.text, own.tokens) == ("What is it?", 4)
    assert shown.warnings == ()


@pytest.mark.parametrize("kind", [as_vllm, as_llama_cpp])
def test_a_template_of_the_server_that_begins_no_answer_is_told(asker: ServerRig, server: BadServer, kind) -> None:
    """Nobody asked the server how it writes answers."""
    kind(server, start="")
    asker.use(server.url)
    asker.worker.submit(p.RenderPrompt(request="r", messages=asking("What is it?")))
    (warning,) = asker.wait(p.RenderedPrompt, p.RequestFailed).warnings
    assert warning.code == "no-generation-prompt"
    assert "<|im_start|>assistant" in warning.cause
    assert "--chat-template of the server" in warning.remedy


def test_a_server_that_does_not_say_more_shows_the_prompt_all_the_same(asker: ServerRig, server: BadServer) -> None:
    as_llama_cpp(server)
    asker.use(server.url)
    whole, asked = server.pages["/apply-template"], []

    def once(body):
        asked.append(body)
        return whole(body) if len(asked) == 1 else {"error": "busy"}

    server.pages["/apply-template"] = once
    asker.worker.submit(p.RenderPrompt(request="r", messages=asking("What is it?")))
    shown = asker.wait(p.RenderedPrompt, p.RequestFailed)
    assert (shown.text, shown.warnings) == (TEXT, ())
    assert [piece.text for piece in shown.pieces if piece.message == 0] == ["What is it?"]


def test_tokens_are_counted_with_what_leaves_and_while_an_answer_runs(asker: ServerRig, server: BadServer) -> None:
    as_vllm(server)
    asker.use(server.url)
    asker.worker.submit(p.CountTokens(request="c", messages=asking("one two three"), reserve=100))
    counted = asker.wait(p.TokenCount, p.RequestFailed)
    assert (counted.tokens, counted.window, counted.dropped, counted.reserve) == (5, 300, 0, 75)
    act = server.will(Act(pieces=["data: {}\n\n"], stall=True))
    name = asker.start()
    assert act.reached.wait(20)
    long = [ChatMessage("user", "word " * 100), ChatMessage("assistant", "word " * 150), *asking("last one")]
    asker.worker.submit(p.CountTokens(request="d", messages=long, reserve=100))
    counted = asker.wait(p.TokenCount, p.RequestFailed)
    assert (counted.tokens, counted.dropped) == (4, 2)
    asker.worker.submit(p.Stop(turn=name))
    asker.wait(p.Finished)


def test_a_long_chat_is_made_to_fit_before_it_is_sent(asker: ServerRig, server: BadServer) -> None:
    as_vllm(server)
    asker.use(server.url)
    long = [ChatMessage("user", "word " * 100), ChatMessage("assistant", "word " * 150), *asking("last one")]
    end = asker.answer(long, msgspec.structs.replace(PLAIN, max_new_tokens=200), session="s")[1]
    assert end.reason == "stop"
    assert server.asked()[-1].body["messages"] == [{"role": "user", "content": "last one"}]
    assert [told.dropped for told in asker.told(p.Prefill)][-1] == 2
    short = [ChatMessage("user", "word " * 240)]
    asker.answer(short, PLAIN)
    assert server.asked()[-1].body["max_tokens"] == 24
    end = asker.answer([ChatMessage("user", "word " * 400)])[1]
    assert end.error.code == "context-full"


@pytest.mark.parametrize(
    ("word", "piece"),
    [
        ("Ġthe", b" the"),
        ("▁the", b" the"),
        ("<0x0A>", b"\n"),
        ("ĠÐ", b" \xd0"),
        ("<|im_end|>", b"<|im_end|>"),
        ("日", "日".encode()),
    ],
)
def test_tokens_are_read_as_vocabularies_write_them(word: str, piece: bytes) -> None:
    assert _piece(word) == piece
