"""`quantchat run` over real engines of every kind: a GPTQ folder, a GGUF file, a server that we did not behave for."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_server import Act, BadServer, chunk, good
from terminal import program_env, quantchat_command

PATIENCE = 120.0
GREEDY = ("--temperature", "0", "--max-tokens", "8")


class Program:
    """Runs it with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history = folder / "h.json"
        self._environment = program_env(folder / "home", HF_HUB_CACHE=str(folder / "hub"))

    def configure(self, text: str) -> None:
        config = self.folder / "home" / "config"
        config.mkdir(parents=True)
        (config / "config.toml").write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = quantchat_command("run", *arguments, "-io", str(self.history))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self._environment, text=True, **pipes)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def answers(self, *arguments: str) -> list[dict[str, object]]:
        """The answers of a run as JSON, which must be a good one."""
        status, out, err = self.run("--json", *arguments)
        assert status == 0, err
        events = [json.loads(line) for line in out.splitlines()]
        found = [event for event in events if event["event"] == "answer"]
        for answer in found:
            assert isinstance(answer["text"], str)
        spoken = "".join(event["text"] for event in events if event["event"] == "text")
        assert spoken == "".join(str(answer["text"]) for answer in found)
        return found

    def said(self) -> list[tuple[str, str]]:
        return [(row["role"], row["content"]) for row in json.loads(self.history.read_bytes())]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def server(program: Program) -> Iterator[BadServer]:
    made = BadServer().start()
    program.configure(f'[servers.box]\nurl = "{made.url}"\n')
    yield made
    made.close()


def answers(server: BadServer, act: Act) -> None:
    """Let a server answer questions so; a load asks for a single token, which comes."""
    server.answers = lambda body: good() if body["max_tokens"] == 1 else act


@pytest.mark.engine
def test_a_gptq_folder(program: Program, models: Path) -> None:
    first, second = program.answers(str(models / "gptq"), *GREEDY, "-p", "What is counted?", "-p", "And tomorrow?")
    assert [role for role, _ in program.said()] == ["user", "assistant"] * 2
    assert program.said()[1][1] == first["text"]
    before, statistics = first["statistics"], second["statistics"]
    assert isinstance(before, dict)
    assert isinstance(statistics, dict)
    # What was asked before is not computed again; nor is the answer, where its bytes are text.
    assert statistics["reused_tokens"] >= before["prompt_tokens"]


def test_a_gguf_file(program: Program) -> None:
    pytest.importorskip("llama_cpp")
    from engine.llama import tiny_gguf

    file = tiny_gguf.write(program.folder / "tiny-F32.gguf")
    first, second = program.answers(str(file), *GREEDY, "-p", "abc", "-p", "def")
    assert program.said()[1][1] == first["text"]
    statistics = second["statistics"]
    assert isinstance(statistics, dict)
    assert statistics["reused_tokens"] > 0


def test_a_model_of_a_server(program: Program, server: BadServer) -> None:
    status, out, err = program.run("server:box/tiny", "-p", "Hi", "-p", "Again", "--system", "Be kind.")
    assert (status, out, err) == (0, "Hello there, my friend.\n" * 2, "")
    last = server.asked()[-1].body
    assert [message["role"] for message in last["messages"]] == ["system", "user", "assistant", "user"]
    assert program.said()[-1] == ("assistant", "Hello there, my friend.")


def test_a_served_model_is_found_by_its_name(program: Program, server: BadServer) -> None:
    assert program.run("tiny", "-p", "Hi")[:2] == (0, "Hello there, my friend.\n")


def test_a_server_that_fails(program: Program, server: BadServer) -> None:
    answers(server, Act(pieces=[chunk("Half an"), chunk(" answer"), ConnectionError]))
    status, out, err = program.run("server:box/tiny", "-p", "Hi", "-p", "never")
    assert (status, out) == (5, "Half an answer\n")
    assert err.startswith("quantchat: ")
    assert program.said() == [("user", "Hi"), ("assistant", "Half an answer")]


def test_ctrl_c_ends_the_work_of_the_server(program: Program, server: BadServer) -> None:
    answers(server, Act(pieces=[chunk("Half an"), chunk(" answer")], stall=True))
    with program.start("server:box/tiny", "-p", "Hi") as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == "Half an"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")
    asked = server.asked()[-1]
    assert asked.gone.wait(PATIENCE)
    assert program.said() == [("user", "Hi"), ("assistant", f"Half an{out}".removesuffix("\n"))]
