"""The child that lists the models of servers: its lines, whatever the servers do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from bad_server import Act, BadServer
from quantchat.engine.backends.server.listing import Asked, list_server

KEY = "sk-very-secret-0123456789"


def child(question: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantchat.engine.backends.server.listing"]
    return subprocess.run(command, input=question, capture_output=True, text=True, timeout=60)


async def ask(seconds: float = 10.0, **server: Any) -> dict[str, Any]:
    """Ask one server in this process; return its line."""
    listed = msgspec.json.encode(await list_server(Asked(name="box", **server), seconds))
    assert KEY not in listed.decode()
    return msgspec.json.decode(listed)


@pytest.fixture
def server():
    server = BadServer().start()
    yield server
    server.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_every_server_has_its_line_whatever_became_of_it(server: BadServer) -> None:
    closed = {"name": "off", "url": f"http://127.0.0.1:{free_port()}/v1"}
    asked = [{"name": "box", "url": server.url}, closed, {"name": "odd", "url": "http://[::bad/v1"}]
    done = child(json.dumps({"servers": asked}))
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["server"]: row for row in map(json.loads, done.stdout.splitlines())}
    box = rows["box"]
    assert box["models"] == [{"id": "tiny", "context_window": 4096}]
    assert (box["kind"], box["label"], box["error"]) == ("vllm", "vLLM", None)
    assert rows["off"]["error"]["code"] == "server-unreachable"
    assert "nothing listens" in rows["off"]["error"]["detail"]
    assert rows["off"]["models"] == []
    assert rows["odd"]["error"]["code"] == "server-address"


async def test_the_settings_choose_models_add_a_window_and_need_no_v1(server: BadServer) -> None:
    server.models = [{"id": "a"}, {"id": "b", "max_model_len": 10}, {"id": "c"}]
    url = server.url.removesuffix("/v1")
    row = await ask(url=url, models=("b", "a", "gone"), context_window=2048)
    assert row["models"] == [{"id": "b", "context_window": 10}, {"id": "a", "context_window": 2048}]


async def test_a_wrong_key_is_refused_and_never_told(server: BadServer) -> None:
    server.key = "another"
    refused = (await ask(url=server.url, key=KEY))["error"]
    assert refused["code"] == "server-key"
    assert "Incorrect API key provided: Bearer …" in refused["detail"]
    server.key = KEY
    assert (await ask(url=server.url, key=KEY))["error"] is None


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (Act(body="<html><body>Log in <b>here</b></body></html>"), "server-words"),
        (Act(body='{"object": "list", "da'), "server-words"),
        (Act(body='{"status": "ok"}'), "server-words"),
        (Act(status=404, body="<html>nginx</html>"), "server-address"),
        (Act(status=502, body="<html><h1>Bad Gateway</h1></html>"), "server-failed"),
        (Act(status=308, headers={"Location": "https://elsewhere.example/v1/models"}), "server-address"),
        (Act(silent=True), "server-timeout"),
        (Act(body="[" * 100_000), "server-words"),
    ],
)
async def test_what_is_no_list_is_an_error_with_a_remedy(server: BadServer, act: Act, code: str) -> None:
    server.always["/v1/models"] = act
    row = await ask(url=server.url, seconds=1.0 if act.silent else 10.0)
    assert (row["error"]["code"], row["models"]) == (code, [])
    assert row["error"]["remedy"]
    assert "<" not in row["error"]["detail"]


@pytest.mark.parametrize(
    ("owner", "pages", "kind"),
    [
        ("sglang", {}, "sglang"),
        ("llamacpp", {"/props": {"default_generation_settings": {"n_ctx": 512}}}, "llama.cpp"),
        ("me", {"/openapi.json": {"info": {"title": "🦙 llama.cpp Python API"}}}, "llama-cpp-python"),
        ("org", {"/openapi.json": {"paths": {"/load_model": {}, "/v1/chat/completions": {}}}}, "transformers"),
        ("org", {"/openapi.json": {"paths": {}}}, "other"),
        ("org", {}, "other"),
    ],
)
async def test_kinds_are_recognised_by_what_servers_say(server: BadServer, owner, pages, kind) -> None:
    server.owner = owner
    server.models = [{"id": "tiny", "meta": {"n_ctx_train": 8192}}]
    server.pages |= {path: lambda _body, page=page: page for path, page in pages.items()}
    row = await ask(url=server.url)
    assert row["kind"] == kind
    assert row["models"][0]["context_window"] == (512 if kind == "llama.cpp" else 8192)


async def test_a_page_that_never_comes_costs_only_the_kind(server: BadServer) -> None:
    server.owner = "org"
    server.always["/openapi.json"] = Act(silent=True)
    row = await ask(url=server.url, seconds=2.0)
    assert (row["kind"], [model["id"] for model in row["models"]]) == ("other", ["tiny"])


def test_nonsense_on_stdin_is_a_usage_error() -> None:
    done = child("{")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not understood" in done.stderr
