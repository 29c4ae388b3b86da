"""A server from its start to its end, on pipes: everything is real but vLLM."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import is_running
from serving_rig import KILLED_FIRST, MODEL, PATIENCE, Stub, until

ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    yield stub
    stub.close()


def ask(url: object, key: str = "") -> int:
    """Ask for the models; return the status."""
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("number", ENDS)
def test_it_serves_until_it_is_told_to_end(stub: Stub, number: signal.Signals) -> None:
    serving = stub.start()
    ready = serving.event("ready")
    assert serving.events[0]["event"] == "plan"
    stages = [event["title"] for event in serving.events if event["event"] == "stage"]
    assert "loading weights" in stages
    key_file = Path(str(ready["key"]))
    key = key_file.read_text()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert (ask(ready["url"]), ask(ready["url"], "wrong"), ask(ready["url"], key)) == (401, 401, 200)
    assert ready["model"] == MODEL
    serving.process.send_signal(number)
    status, said = serving.end()
    assert (status, "Traceback" in said) == (0, False)
    assert stub.nothing_runs()
    assert not key_file.exists()
    assert stub.environment["VLLM_API_KEY"] == key
    logs = list((stub.home / "state" / "logs").iterdir())
    assert [stat.S_IMODE(log.stat().st_mode) for log in logs] == [0o600]
    written = [log.read_text() for log in logs] + [(stub.folder / "argv.json").read_text(), json.dumps(serving.events)]
    assert all(key not in text for text in [*written, said])


def test_a_key_of_the_users_own_is_taken(stub: Stub) -> None:
    serving = stub.start(VLLM_API_KEY="mine")
    ready = serving.event("ready")
    assert ready["key"] == "$VLLM_API_KEY"
    assert ask(ready["url"], "mine") == 200
    serving.process.terminate()
    assert serving.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_stopped_while_it_starts(stub: Stub, number: signal.Signals) -> None:
    stub.script(hold="LLM engine")
    serving = stub.start()
    serving.event("stage")
    serving.process.send_signal(number)
    status, said = serving.end()
    assert status == 130
    assert "Stopped" in said
    assert stub.nothing_runs()


def test_nothing_is_left_when_the_program_is_killed(stub: Stub) -> None:
    serving = stub.start()
    serving.event("ready")
    assert all(map(is_running, stub.pids()))
    serving.process.kill()
    serving.end()
    until(stub.nothing_runs)


def test_a_second_ctrl_c_ends_what_does_not_listen(stub: Stub) -> None:
    stub.script(ignore_term=True, worker="session")
    serving = stub.start()
    serving.event("ready")
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.stderr is not None
    assert "Ending" in serving.process.stderr.readline()
    assert all(map(is_running, stub.pids()))
    serving.process.send_signal(signal.SIGINT)
    until(stub.nothing_runs, KILLED_FIRST)
    serving.end()


def test_why_it_did_not_start(stub: Stub) -> None:
    stub.script(fail=["ERROR 11-22 03:10:00 [core.py:9] torch.OutOfMemoryError: CUDA out of memory. Tried"])
    serving = stub.start()
    status, said = serving.end()
    assert status == 5
    assert "The GPU ran out of memory" in said
    assert "Traceback" not in said
    assert serving.events[-1]["code"] == "out-of-memory"
    assert str(next((stub.home / "state" / "logs").iterdir())) in said


def test_it_starts_once_more_with_the_context_that_fits(stub: Stub) -> None:
    stub.script(fail_above=1536)
    serving = stub.start()
    serving.event("ready")
    plans = [event for event in serving.events if event["event"] == "plan"]
    assert [plan["context"] for plan in plans] == [2048, 1536]
    assert any("1,536 tokens" in str(event.get("text")) for event in serving.events)
    assert stub.option("--max-model-len") == "1536"
    serving.process.terminate()
    assert serving.end()[0] == 0


def test_a_context_that_the_user_names_is_not_changed(stub: Stub) -> None:
    stub.script(fail_above=1536)
    serving = stub.start("--max-model-len", "2000")
    status, said = serving.end()
    assert status == 5
    assert "--max-model-len 1536" in said


def test_a_server_that_dies_later_is_explained(stub: Stub) -> None:
    stub.script(die_after=1)
    serving = stub.start()
    ready = serving.event("ready")
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    key = Path(str(ready["key"])).read_text()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{ready['url']}/chat/completions", body, headers)) as answer:
        assert b" stub" in answer.read()
    status, said = serving.end()
    assert (status, "ran out of memory" in said) == (5, True)


def test_a_taken_port_is_no_surprise_after_minutes(stub: Stub) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        status, said = stub.start("--port", str(port)).end()
    assert status == 2
    assert f"Port {port} is taken by process {os.getpid()}" in said
    assert stub.pids() == []


def test_the_program_can_stand_elsewhere(stub: Stub) -> None:
    own = stub.install("my-vllm")
    plan = json.loads(stub.invoke("--print", "--json", "--program", str(own), "--", "--max-num-seqs", "8").stdout)
    assert (plan["command"][:2], plan["command"][-1]) == ([str(own), "serve"], "8")
    assert plan["url"].endswith("/v1")
    assert plan["context"] == 2048


def test_without_vllm_it_says_how_to_get_it(stub: Stub, tmp_path: Path) -> None:
    (stub.bin / "vllm").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    done = stub.invoke("--no-screen", PATH=str(empty))
    assert done.exit_code == 5
    for word in ("vLLM is not installed", "pip install vllm", "--backend transformers"):
        assert word in done.stderr


def test_the_command_is_printed_without_vllm_too(stub: Stub) -> None:
    (stub.bin / "vllm").unlink()
    done = stub.invoke("--print")
    assert done.exit_code == 0
    *comments, command = done.stdout.splitlines()
    assert all(line.startswith("# ") for line in comments)
    assert command.startswith("vllm serve ")
    assert stub.pids() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json",), "--json goes with"),
        ((), "--no-screen"),
        (("--device", "gpu0", "--print"), "cuda:0,cuda:2"),
        (("--backend", "transformers", "--host", "0.0.0.0", "--print"), "asks for no key"),
        (("--gpu-memory-utilization", "nan", "--print"), "--gpu-memory-utilization"),
        (("--gpu-memory-utilization", "inf", "--print"), "--gpu-memory-utilization"),
    ],
)
def test_wrong_command_lines(stub: Stub, arguments: tuple[str, ...], said: str) -> None:
    done = stub.invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert stub.pids() == []


# The guard by itself, with less patience

SERVER = """
import os, signal, subprocess, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worker', flush=True); time.sleep(60)"
session = "session" in sys.argv
worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=session)
worker.stdout.readline()
print(os.getpid(), worker.pid, flush=True)
if "die" in sys.argv: os._exit(7)
time.sleep(60)
"""


def guarded(*how: str) -> tuple[subprocess.Popen[str], list[int]]:
    command = [sys.executable, "-c", SERVER, *how]
    guard = subprocess.Popen(
        [sys.executable, "-P", "-m", "quantchat.services.serving.guard", "0.3", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert guard.stdout is not None
    return guard, [int(word) for word in guard.stdout.readline().split()]


@pytest.mark.parametrize("how", [(), ("deaf",), ("session",), ("deaf", "session")])
def test_all_that_a_server_started_ends_with_it(how: tuple[str, ...]) -> None:
    guard, pids = guarded(*how)
    with guard:
        assert all(map(is_running, pids))
        guard.communicate(timeout=PATIENCE)
    assert guard.returncode == (128 + signal.SIGKILL if "deaf" in how else 128 + signal.SIGTERM)
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("how", [("die",), ("die", "session")])
def test_what_a_dying_server_leaves_behind_ends_too(how: tuple[str, ...]) -> None:
    guard, pids = guarded(*how)
    with guard:
        assert guard.wait(PATIENCE) == 7
    assert not any(map(is_running, pids))


def test_a_signal_to_the_guard_ends_the_server() -> None:
    guard, pids = guarded()
    with guard:
        guard.terminate()
        assert guard.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not any(map(is_running, pids))


def test_a_program_that_cannot_be_run() -> None:
    command = [sys.executable, "-P", "-m", "quantchat.services.serving.guard", "1", "/nothing/here"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 127
    assert "No such file" in done.stderr
