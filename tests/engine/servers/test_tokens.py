"""What servers tell of tokens: counts and prompts, and conversations that are made to fit by them."""

from __future__ import annotations

import msgspec
import pytest

from bad_server import Act, BadServer
from engine.rig import asking
from engine.servers.rig import PLAIN, ServerRig
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p
from quantchat.engine.backends.server.tokens import _piece

GPT2 = ["<|im_start|>", "user", "Ċ", "What", "Ġis", "Ġit", "?", "<|im_end|>"]
TEXT = "<|im_start|>user\nWhat is it?<|im_end|>"


def as_vllm(server: BadServer) -> None:
    """Tell tokens as vLLM does: each word one token and each message two more."""

    def tokenize(body):
        if body.get("return_token_strs"):
            return {"count": len(GPT2), "tokens": [*range(1, 8), 8], "token_strs": GPT2, "max_model_len": 300}
        return {"count": sum(len(m["content"].split()) + 2 for m in body["messages"]), "max_model_len": 300}

    server.pages |= {"/tokenize": tokenize, "/detokenize": lambda _body: {"prompt": TEXT}}
    server.models = [{"id": "tiny", "max_model_len": 300}]


def as_llama_cpp(server: BadServer) -> None:
    """Tell tokens as llama.cpp's own server does."""
    pieces = [{"id": n + 1, "piece": piece.replace("Ġ", " ").replace("Ċ", "\n")} for n, piece in enumerate(GPT2)]
    server.owner = "llamacpp"
    server.models = [{"id": "tiny", "meta": {"n_ctx_train": 300}}]
    server.pages["/apply-template"] = lambda _body: {"prompt": TEXT}
    server.pages["/tokenize"] = lambda _body: {"tokens": pieces}


@pytest.mark.parametrize("kind", [as_vllm, as_llama_cpp])
def test_the_prompt_is_shown_with_its_tokens(asker: ServerRig, server: BadServer, kind) -> None:
    kind(server)
    assert isinstance(asker.use(server.url), p.Loaded)
    asker.worker.submit(p.RenderPrompt(request="r", messages=asking("What is it?")))
    shown = asker.wait(p.RenderedPrompt, p.RequestFailed)
    assert (shown.text, shown.tokens, shown.window) == (TEXT, 8, 300)
    assert [piece.text for piece in shown.pieces if piece.special] == ["<|im_start|>", "<|im_end|>"]
    assert "".join(piece.text for piece in shown.pieces) == TEXT
    (own,) = [piece for piece in shown.pieces if piece.message == 0]
    assert (own.text, own.tokens) == ("What is it?", 4)
    assert shown.warnings == ()


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
