"""Servers that misbehave: every turn ends once, with the text so far and an error that says what to do."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

from bad_server import DONE, Act, BadServer, chunk, event, good
from engine.rig import ENDS
from engine.servers.rig import PLAIN, ServerRig
from quantchat.domain.chat import ChatMessage
from quantchat.engine import protocol as p
from quantchat.engine.backends.server.faults import retry_after
from quantchat.engine.backends.server.sse import EventReader

KEY = "sk-very-secret-0123456789"
HELLO = "Hello there, my friend."
RESET, CLOSE = ConnectionResetError, ConnectionError


def error(message: str, **more: object) -> str:
    return json.dumps({"error": {"message": message} | more})


# Before any text: the same again

PASSING = {
    "an error of the server": Act(status=500, body=error("CUDA error")),
    "a proxy without a server": Act(status=502, body="<html><h1>Bad Gateway</h1></html>"),
    "not ready": Act(status=503, body=error("Loading model", code=503)),
    "too many requests": Act(status=429, body=error("slow down"), headers={"Retry-After": "0"}),
    "too many requests, without a word": Act(status=429),
    "cut before the head": Act(pieces=[RESET], headers={"X": "y"}),
    "cut in the head of the stream": Act(pieces=[chunk(role="assistant"), CLOSE]),
    "ended without an end": Act(pieces=[chunk(role="assistant")]),
    "ended without an end or a length": Act(pieces=[chunk(role="assistant")], plain=True),
    "half a line": Act(pieces=['data: {"choices": [{"del'], plain=True),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_passes_is_tried_again(box: ServerRig, server: BadServer, what: str) -> None:
    server.will(PASSING[what])
    text, end = box.answer()
    assert (text, end.reason) == (HELLO, "stop")
    assert len(server.asked()) == 2


def test_a_slow_server_is_waited_for(box: ServerRig, server: BadServer) -> None:
    late = server.will(Act(silent=True, pieces=good()))
    name = box.start()
    assert late.reached.wait(20)
    box.worker.submit(p.Ping(request="still there"))
    assert box.wait(p.Pong).busy
    late.released.set()
    assert (box.wait(*ENDS).reason, box.said(name)) == ("stop", HELLO)
    assert len(server.asked()) == 1


def test_a_failure_that_lasts_is_told_after_a_few_tries(box: ServerRig, server: BadServer) -> None:
    server.always["/v1/chat/completions"] = Act(status=500, body=error("engine is dead"))
    text, end = box.answer()
    assert (text, end.error.code) == ("", "server-failed")
    assert "engine is dead" in end.error.detail
    assert len(server.asked()) == 5


def test_waiting_is_told_and_can_be_stopped(box: ServerRig, server: BadServer) -> None:
    server.will(Act(status=429, body=error("slow down"), headers={"Retry-After": "60"}))
    name = box.start()
    assert "trying again in 60 s (1 of 4)" in box.wait(p.Log).text
    box.worker.submit(p.Stop(turn=name))
    assert box.wait(*ENDS).reason == "stopped"
    assert len(server.asked()) == 1


def test_a_wait_that_is_too_long_is_told_in_place_of_waited(box: ServerRig, server: BadServer) -> None:
    server.will(Act(status=429, body=error("quota used up"), headers={"Retry-After": "3600"}))
    end = box.answer()[1]
    assert (end.error.code, end.error.detail) == ("server-busy", "quota used up")
    assert "3,600 s" in end.error.remedy


def test_waits_are_numbers_or_dates() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < retry_after({"retry-after": soon}) <= 60
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


# After text: it stays


@pytest.mark.parametrize(
    ("pieces", "plain", "code"),
    [
        ([chunk("Hello"), RESET], False, "server-cut"),
        ([chunk("Hello"), CLOSE], False, "server-cut"),
        ([chunk("Hello")], True, "server-cut"),
        ([chunk("Hello"), 'data: {"choices": [{"delta": {"content": " the'], True, "server-cut"),
        ([chunk("Hello"), DONE], False, "server-cut"),
        ([chunk("Hello"), chunk("", "abort"), DONE], False, "server-cut"),
        ([chunk("Hello"), "data: {not json}\n\n"], False, "server-words"),
        ([chunk("Hello"), event({"choices": [{"delta": {"content": 7}}]})], False, "server-words"),
        ([chunk("Hello"), event([1, 2])], False, "server-words"),
        ([chunk("Hello"), event({"error": {"message": "CUDA out of memory"}})], False, "server-failed"),
        ([chunk("Hello"), 'error: {"error": {"message": "broken"}}\n\n'], False, "server-failed"),
        ([chunk("Hello"), "data: " + "x" * (9 << 20) + "\n\n"], False, "server-words"),
    ],
)
def test_after_text_a_fault_keeps_it_and_is_not_tried_again(box, server, pieces, plain, code) -> None:
    server.will(Act(pieces=pieces, plain=plain))
    text, end = box.answer()
    assert (text, end.error.code) == ("Hello", code)
    assert end.error.remedy
    assert len(server.asked()) == 1
    assert box.answer()[0] == HELLO


@pytest.mark.parametrize("said", [[], [chunk("Hello")]])
def test_a_filtered_answer_is_none_that_another_try_would_give(box: ServerRig, server: BadServer, said: list) -> None:
    """Without text it was asked for five times."""
    server.always["/v1/chat/completions"] = Act(pieces=[*said, chunk("", "content_filter"), DONE])
    text, end = box.answer()
    assert (text, end.error.code) == ("Hello" if said else "", "server-filtered")
    assert server.url.split("/")[2] in end.error.detail
    assert len(server.asked()) == 1


def test_text_that_was_held_back_comes_out_before_the_fault(box: ServerRig, server: BadServer) -> None:
    server.will(Act(pieces=[chunk("Hello EN"), RESET]))
    text, _ = box.answer(sampling=msgspec.structs.replace(PLAIN, stop=("END",)))
    assert text == "Hello EN"


def test_odd_streams_that_mean_no_harm_are_read(box: ServerRig, server: BadServer) -> None:
    words = "".join(good()).encode("utf-8").decode()
    odd = [": ping\r\n\r\n", "event: message\r\n", "id: 7\r\nretry: 10\r\n", words.replace("\n", "\r\n")]
    server.will(Act(pieces=odd))
    assert box.answer()[0] == HELLO
    letters = "".join([chunk("Grüße 🦙 "), chunk("日本"), chunk(None, "stop"), DONE])
    server.will(Act(pieces=[*letters]))
    assert box.answer()[0] == "Grüße 🦙 日本"


def test_half_characters_do_not_end_an_answer(box: ServerRig, server: BadServer) -> None:
    halves = ['data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n', chunk("b").replace("b", "b\udcff")]
    server.will(Act(pieces=[*halves, chunk(None, "stop"), DONE]))
    assert box.answer()[0] == "a?b\ufffd"


def test_characters_may_be_cut_between_pieces() -> None:
    reader = EventReader()
    raw = "data: 🦙日\n\n".encode()
    assert [data.decode() for byte in raw for data in reader.feed(bytes([byte]))] == ["🦙日"]


# What is wrong with the address, the key, the model


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (Act(status=401, body=error("Invalid key")), "server-key"),
        (Act(status=403, body=""), "server-key"),
        (Act(status=404, body=error("The model `tiny` does not exist")), "server-address"),
        (Act(status=405, body='{"detail": "Method Not Allowed"}'), "server-address"),
        (Act(status=302, headers={"Location": "http://elsewhere.example/login"}), "server-address"),
        (Act(body="<html>Log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}), "server-address"),
        (Act(body="{}", headers={"Content-Type": "application/json"}), "server-cut"),
        (Act(status=400, body=error("something odd")), "server-refused"),
        (Act(status=418, body="\x1b[31mteapot\x1b[0m"), "server-refused"),
    ],
)
def test_a_refusal_says_what_to_look_at(box: ServerRig, server: BadServer, act: Act, code: str) -> None:
    server.always["/v1/chat/completions"] = act
    text, end = box.answer()
    assert (text, end.error.code) == ("", code)
    assert end.error.remedy
    assert "\x1b" not in end.error.detail
    assert "<" not in end.error.detail


def test_the_key_is_sent_and_never_told(asker: ServerRig, server: BadServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.key = "another"
    failed = asker.use(server.url, key=KEY)
    assert failed.error.code == "server-key"
    server.key = KEY
    assert isinstance(asker.use(server.url, key=KEY), p.Loaded)
    server.will(Act(status=500, body=error(f"I do not like {KEY}")), Act(status=400, body=error(f"nor {KEY}")))
    end = asker.answer()[1]
    assert "nor …" in end.error.detail
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(asker.events)
    assert KEY not in "".join(capfd.readouterr())


def test_keys_of_the_environment_stay_here(asker: ServerRig, server: BadServer, monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    asker.use(server.url)
    asker.answer()
    assert all(KEY not in value for request in server.requests for value in request.headers.values())


def test_a_redirect_is_not_followed_with_the_key(asker: ServerRig, server: BadServer) -> None:
    other = BadServer().start()
    server.always["/v1/models"] = Act(status=307, headers={"Location": f"{other.url}/models"})
    failed = asker.use(server.url, key=KEY)
    assert failed.error.code == "server-address"
    assert other.url in failed.error.detail
    assert other.requests == []
    other.close()


# Loading


def test_nothing_listens_there(asker: ServerRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    failed = asker.use(f"http://127.0.0.1:{port}/v1")
    assert (failed.error.code, failed.error.detail) == (
        "server-unreachable",
        f"127.0.0.1:{port}: nothing listens there.",
    )


def test_a_model_that_is_not_there_names_those_that_are(asker: ServerRig, server: BadServer) -> None:
    server.models = [{"id": name} for name in ("a", "b", "c", "d")]
    failed = asker.use(server.url)
    assert failed.error.code == "server-model"
    assert failed.error.detail.endswith("has a, b, c and 1 more.")


def test_a_server_that_still_loads_is_waited_for(asker: ServerRig, server: BadServer, monkeypatch) -> None:
    monkeypatch.setattr("quantchat.engine.backends.server.opening.LOOK_SECONDS", 0.01)
    server.will(*[Act(status=503, body=error("Loading model")) for _ in range(3)], path="/v1/models")
    asker.events.clear()
    assert isinstance(asker.use(server.url), p.Loaded)
    stages = {(event.stage, event.note) for event in asker.told(p.LoadProgress)}
    assert ("waiting for the server to get ready", "Loading model") in stages


@pytest.mark.parametrize("status", [429, 503])
def test_a_load_tells_how_long_a_server_wants_to_be_left_alone(asker, server, monkeypatch, status: int) -> None:
    """A model list that was limited failed the load at once."""
    monkeypatch.setattr("quantchat.engine.backends.server.opening.LOOK_SECONDS", 0.01)
    busy = Act(status=status, body=error("slow down"), headers={"Retry-After": "0.02"})
    server.will(busy, path="/v1/models")
    asker.events.clear()
    assert isinstance(asker.use(server.url), p.Loaded)
    stages = {(event.stage, event.note) for event in asker.told(p.LoadProgress)}
    assert ("waiting 0.02 s, as the server asks", "slow down") in stages


def test_a_load_does_not_wait_for_ever_as_a_server_asks(asker: ServerRig, server: BadServer) -> None:
    server.will(Act(status=429, headers={"Retry-After": "86400"}), path="/v1/models")
    failed = asker.use(server.url)
    assert (failed.error.code, failed.error.remedy) == ("server-busy", "Send again in 86,400 s.")


def test_a_load_tells_that_its_first_token_waits(asker: ServerRig, server: BadServer) -> None:
    """Was two minutes of “waiting for a first token”."""
    server.will(Act(status=429, headers={"Retry-After": "0.02"}))
    asker.events.clear()
    assert isinstance(asker.use(server.url), p.Loaded)
    stages = [event.stage for event in asker.told(p.LoadProgress)]
    told = "The server takes no more requests now; trying again in 0.02 s (1 of 4)"
    assert stages[stages.index(told) + 1] == "waiting for a first token"


def test_a_model_that_says_nothing_is_not_loaded(asker: ServerRig, server: BadServer, monkeypatch) -> None:
    monkeypatch.setattr("quantchat.engine.backends.server.turn.FIRST_WAIT", 0.01)
    words = "As of transformers v4.44, default chat template is no longer allowed"
    server.always["/v1/chat/completions"] = Act(status=400, body=error(words))
    assert words in asker.use(server.url).error.detail
    assert asker.answer()[1].error.code == "no-model"


# The context window


def long_chat(turns: int) -> list[ChatMessage]:
    pairs = [
        (ChatMessage("user", f"question {n} " * 20), ChatMessage("assistant", f"answer {n} " * 20))
        for n in range(turns)
    ]
    return [
        ChatMessage("system", "Be brief."),
        *(m for pair in pairs for m in pair),
        ChatMessage("user", "The last one?"),
    ]


def words_in(body: dict) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


@pytest.mark.parametrize("window", [4096, 0])
def test_the_oldest_turns_leave_when_the_server_refuses_a_long_chat(asker, server, window) -> None:
    limit = 200
    server.models = [{"id": "tiny", "max_model_len": window} if window else {"id": "tiny"}]
    asker.use(server.url)
    refusals = []

    def act(body: dict) -> Act:
        prompt, new = words_in(body), body["max_tokens"]
        if prompt + new <= limit:
            return Act(pieces=good())
        refusals.append(prompt)
        words = f"This model's maximum context length is {limit} tokens. However, you requested {prompt + new} tokens"
        return Act(status=400, body=error(f"{words} ({prompt} in the messages, {new} in the completion)."))

    server.answers = act
    text, end = asker.answer(long_chat(6), session="s")
    assert (text, end.reason) == (HELLO, "stop")
    assert 1 <= len(refusals) <= 3
    sent = server.asked()[-1].body["messages"]
    assert sent[0]["role"] == "system"
    assert sent[-1]["content"] == "The last one?"
    assert sent[1]["role"] == "user"
    dropped = asker.told(p.Prefill)[-1].dropped
    assert dropped == len(long_chat(6)) - len(sent) > 0
    refusals.clear()
    asker.answer(long_chat(6), session="s")
    assert refusals == [], "what left stays away in the next turn"


def test_a_limit_that_does_not_fit_is_made_shorter_and_the_wall_is_told(box, server) -> None:
    def act(body: dict) -> Act:
        if body["max_tokens"] > 90:
            return Act(
                status=400, body=error("maximum context length is 100 tokens and your request has 10 input tokens")
            )
        return Act(pieces=[chunk("and so on"), chunk(None, "length"), DONE])

    server.answers = act
    text, end = box.answer(sampling=msgspec.structs.replace(PLAIN, max_new_tokens=1000))
    assert (text, end.reason, server.asked()[-1].body["max_tokens"]) == ("and so on", "context", 90)


def test_a_question_that_alone_is_too_long_fails_by_name(box: ServerRig, server: BadServer) -> None:
    words = "maximum context length is 100 tokens. However, you requested 524 tokens (500 in the messages)"
    server.always["/v1/chat/completions"] = Act(status=400, body=error(words))
    end = box.answer()[1]
    assert end.error.code == "context-full"
    assert "500" in end.error.detail
