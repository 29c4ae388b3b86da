"""The client over the scripted engine: the invariants of the protocol, and how engines end."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from client_rig import SCRIPTED_ENGINE, ClientRig
from processes import command_line, is_running
from quantchat.engine import client as client_module
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import (
    CountTokens,
    Delta,
    Event,
    Failed,
    Finished,
    LoadFailed,
    LoadProgress,
    Ping,
    Pong,
    Prefill,
    Ready,
    RequestFailed,
    Stop,
    TokenCount,
    Unload,
    Unloaded,
)
from quantchat.errors import EngineGone
from scripted_engine import CRASH

Rigs = Callable[..., ClientRig]
ENDLESS: dict[str, object] = {"match": "endless", "text": "word " * 50_000, "tokens_per_second": 500}
ERROR = {"code": "out-of-memory", "title": "Out of memory", "detail": "It did not fit."}
HANG = 20.0
"""Seconds; what waits that long would wait for ever."""


def text_of(events: list[Event | EngineExited]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.channel == "answer")


class TestTurns:
    async def test_an_answer_streams_and_finishes_once(self, rig: Rigs) -> None:
        engine = rig(answers=[{"text": "The capital is\nParis.", "thinking": "Hm. France."}])
        await engine.start()
        await engine.load()
        engine.ask("one", "Capital of France?")
        end = await engine.finish("one")
        assert isinstance(end, Finished)
        assert (end.reason, end.statistics.new_tokens) == ("stop", 6)
        assert text_of(engine.of_turn("one")) == "The capital is\nParis."
        assert isinstance(engine.of_turn("one")[0], Prefill)
        assert engine.of_turn("one")[-1] is end

    async def test_every_generate_ends_exactly_once(self, rig: Rigs) -> None:
        engine = rig(
            answers=[
                {"match": "fails", "text": "a b", "fail": ERROR},
                {"match": "nothing", "text": ""},
                {"match": "many", "text": "word " * 200, "tokens_per_second": 0},
                ENDLESS,
            ]
        )
        await engine.start()
        engine.ask("no model", "hello")
        await engine.finish("no model")
        await engine.load()
        for turn in ("fails", "nothing", "many"):
            engine.ask(turn, turn)
            await engine.finish(turn)
        engine.ask("stopped", "endless")
        engine.ask("refused", "while another answer streams")
        await engine.wait_for(Delta, lambda event: event.turn == "stopped")
        engine.client.send(Stop(turn="stopped"))
        engine.client.send(Stop(turn="stopped"))
        engine.client.send(Stop(turn="never heard of"))
        await engine.finish("stopped")
        engine.ask("limited", "many", max_new_tokens=7)
        await engine.finish("limited")
        await engine.client.close()

        ends = {turn: engine.ends(turn) for turn in ("no model", "fails", "nothing", "many", "stopped", "refused")}
        assert all(len(end) == 1 for end in ends.values())
        codes = {turn: end[0].error.code for turn, end in ends.items() if isinstance(end[0], Failed)}
        assert codes == {"no model": "no-model", "fails": "out-of-memory", "refused": "busy"}
        reasons = {turn: end[0].reason for turn, end in ends.items() if isinstance(end[0], Finished)}
        assert reasons == {"nothing": "stop", "many": "stop", "stopped": "stopped"}
        limited = engine.ends("limited")[0]
        assert isinstance(limited, Finished)
        assert (limited.reason, limited.statistics.new_tokens) == ("length", 7)

    async def test_late_events_carry_the_turn_that_they_belong_to(self, rig: Rigs) -> None:
        engine = rig(answers=[ENDLESS, {"text": "second"}])
        await engine.start()
        await engine.load()
        engine.ask("first", "endless")
        await engine.wait_for(Delta)
        engine.client.send(Stop(turn="first"))
        engine.client.send(Stop(turn="second"))
        await engine.finish("first")
        engine.ask("second", "go")
        await engine.finish("second")
        order = [event.turn for event in engine.events if isinstance(event, Delta | Prefill | Finished | Failed)]
        assert order == sorted(order)
        assert text_of(engine.of_turn("second")) == "second"

    async def test_stop_keeps_the_text_so_far(self, rig: Rigs) -> None:
        engine = rig(answers=[ENDLESS])
        await engine.start()
        await engine.load()
        engine.ask("long", "endless")
        await engine.wait_for(Delta, lambda event: event.tokens >= 20)
        engine.client.send(Stop(turn="long"))
        end = await engine.finish("long")
        assert isinstance(end, Finished)
        assert end.statistics.new_tokens == len(text_of(engine.of_turn("long")).split()) >= 20

    async def test_a_busy_engine_still_answers_questions(self, rig: Rigs) -> None:
        engine = rig(answers=[ENDLESS])
        await engine.start()
        await engine.load()
        engine.ask("long", "endless")
        await engine.wait_for(Delta)
        engine.client.send(Ping(request="ping"))
        engine.client.send(CountTokens(request="count", messages=[]))
        assert (await engine.wait_for(Pong)).busy
        assert (await engine.wait_for(TokenCount)).tokens == 0
        engine.client.send(Unload(request="unload"))
        assert (await engine.wait_for(Unloaded)).freed > 0
        end = await engine.finish("long")
        assert isinstance(end, Finished)
        assert end.reason == "stopped"
        engine.client.send(Unload(request="again"))
        assert (await engine.wait_for(RequestFailed)).error.code == "no-model"

    async def test_a_failed_load_is_reported_with_the_next_kernel(self, rig: Rigs) -> None:
        engine = rig(load={"fail": ERROR, "next_kernel": "gptq_torch", "seconds": 0.01})
        await engine.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await engine.load()
        failed = await engine.wait_for(LoadFailed)
        assert (failed.error.code, failed.next_kernel) == ("out-of-memory", "gptq_torch")
        assert any(isinstance(event, LoadProgress) for event in engine.events)

    async def test_thousands_of_tokens_per_second_arrive_complete_and_in_order(self, rig: Rigs) -> None:
        engine = rig(answers=[{"text": "word " * 20_000, "tokens_per_second": 0}])
        await engine.start()
        await engine.load()
        engine.ask("flood", "go")
        await engine.finish("flood")
        numbers = [event.tokens for event in engine.of_turn("flood") if isinstance(event, Delta)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert text_of(engine.of_turn("flood")) == "word " * 20_000


class TestEnds:
    async def test_a_crash_in_an_answer_is_reported_and_a_restart_works(self, rig: Rigs) -> None:
        engine = rig(noise="importing", answers=[{"match": "crash", "text": "a b c d", "crash_after_tokens": 2}])
        await engine.start()
        await engine.load()
        engine.ask("doomed", "crash")
        exited = await engine.wait_for(EngineExited)
        assert (exited.code, exited.signal, exited.expected) == (CRASH, None, False)
        assert exited.log_tail == "importing\nscripted engine: Fatal crash as told"
        assert text_of(engine.of_turn("doomed")) == "a b"
        assert engine.ends("doomed") == []
        assert engine.events[-1] is exited
        assert not engine.client.running
        assert engine.client.pid is None
        with pytest.raises(EngineGone):
            engine.ask("later", "hello")

        await engine.start()
        await engine.load("again")
        engine.ask("after", "hello")
        assert isinstance(await engine.finish("after"), Finished)
        await engine.client.close()
        assert engine.exits()[1].log_tail == "importing"

    async def test_a_kill_from_outside_names_the_signal(self, rig: Rigs) -> None:
        engine = rig()
        await engine.start()
        os.kill(engine.pids[0], signal.SIGKILL)
        exited = await engine.wait_for(EngineExited)
        assert (exited.code, exited.signal, exited.expected) == (None, "SIGKILL", False)

    async def test_an_engine_that_dies_at_its_start_is_reported(self, rig: Rigs) -> None:
        engine = rig(exit_at_start=3, noise="No module named 'torch'")
        await engine.spawn()
        exited = await engine.wait_for(EngineExited)
        assert (exited.code, exited.log_tail) == (3, "No module named 'torch'")

    async def test_close_is_quiet_and_repeatable(self, rig: Rigs) -> None:
        engine = rig()
        await engine.client.close()
        await engine.start()
        await asyncio.gather(engine.client.close(), engine.client.close())
        await engine.client.close()
        assert [(exited.code, exited.expected) for exited in engine.exits()] == [(0, True)]

    @pytest.mark.parametrize("prompt", [None, "endless"])
    async def test_close_kills_an_engine_that_ignores_shutdown(self, rig: Rigs, prompt: str | None) -> None:
        engine = rig(ignore_shutdown=True, answers=[ENDLESS])
        await engine.start()
        await engine.load()
        if prompt:
            engine.ask("long", prompt)
            await engine.wait_for(Delta)
        await asyncio.wait_for(engine.client.close(grace=0.3), HANG)
        assert [(exited.signal, exited.expected) for exited in engine.exits()] == [("SIGKILL", True)]
        assert not psutil.pid_exists(engine.pids[0])

    async def test_close_ends_a_frozen_engine_whose_pipe_is_full(self, rig: Rigs) -> None:
        engine = rig()
        await engine.start()
        os.kill(engine.pids[0], signal.SIGSTOP)
        start = time.monotonic()
        for number in range(50):
            engine.ask(str(number), "x" * 100_000)
        assert time.monotonic() - start < HANG
        await engine.client.close(grace=0.2)
        assert engine.exits()[0].signal == "SIGKILL"

    async def test_cancelling_close_leaves_no_engine(self, rig: Rigs) -> None:
        engine = rig(ignore_shutdown=True)
        await engine.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await engine.client.close(grace=60)
        assert (await engine.wait_for(EngineExited)).expected

    async def test_kill_is_immediate_and_expected(self, rig: Rigs) -> None:
        engine = rig(ignore_shutdown=True)
        await engine.start()
        engine.client.kill()
        assert not engine.client.running
        exited = await engine.wait_for(EngineExited)
        assert (exited.signal, exited.expected) == ("SIGKILL", True)
        engine.client.kill()

    async def test_what_the_engine_started_dies_with_it(self, tmp_path: Path) -> None:
        """A compiler left behind would hold the pipe open, and the exit would never be reported."""
        reported: list[Event | EngineExited] = []
        done = asyncio.Event()

        def record(event: Event | EngineExited) -> None:
            reported.append(event)
            done.set()

        pid_file = tmp_path / "pid"
        command = ["bash", "-c", f"sleep 600 & echo $! > {pid_file}; exit 5"]
        client = EngineClient(record, command=command, log_path=tmp_path / "engine.log")
        await client.start()
        async with asyncio.timeout(10):
            await done.wait()
        assert [event.code for event in reported if isinstance(event, EngineExited)] == [5]
        helper = int(pid_file.read_text())
        await until(lambda: not is_running(helper))

    async def test_an_engine_that_closes_its_pipes_and_lives_on_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, "LINGER", 0.1)
        reported: list[Event | EngineExited] = []
        command = [sys.executable, "-c", "import os, time; os.close(0); os.close(1); time.sleep(600)"]
        client = EngineClient(reported.append, command=command, log_path=tmp_path / "engine.log")
        await client.start()
        await until(lambda: bool(reported))
        assert [event.signal for event in reported if isinstance(event, EngineExited)] == ["SIGKILL"]


class TestRobustness:
    async def test_garbage_on_the_pipe_ends_the_engine_with_an_explanation(self, rig: Rigs) -> None:
        engine = rig(garbage="Traceback (most recent call last):\n")
        await engine.start()
        exited = await engine.wait_for(EngineExited)
        assert (exited.signal, exited.expected) == ("SIGKILL", False)
        assert "out of step" in exited.log_tail
        assert [type(event) for event in engine.events] == [Ready, EngineExited]

    async def test_an_exception_in_the_receiver_is_logged_and_the_stream_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[Event | EngineExited] = []

        def clumsy(event: Event | EngineExited) -> None:
            seen.append(event)
            raise ZeroDivisionError

        client = EngineClient(clumsy, command=[sys.executable, str(SCRIPTED_ENGINE)], log_path=tmp_path / "engine.log")
        await client.start()
        await until(lambda: len(seen) == 1)
        client.send(Ping(request="ping"))
        await until(lambda: len(seen) == 2)
        await client.close()
        assert [type(event) for event in seen] == [Ready, Pong, EngineExited]
        assert sum("Ready" in record.message and bool(record.exc_info) for record in caplog.records) == 1

    @pytest.mark.parametrize("command", [["/no/such/program"], [str(SCRIPTED_ENGINE.parent)]])
    async def test_what_cannot_be_started_says_so(self, tmp_path: Path, command: list[str]) -> None:
        reported: list[Event | EngineExited] = []
        client = EngineClient(reported.append, command=command, log_path=tmp_path / "engine.log")
        with pytest.raises(EngineGone, match=command[0]):
            await client.start()
        assert (client.running, client.pid, reported) == (False, None, [])
        await client.close()

    async def test_the_command_comes_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(client_module.COMMAND_VARIABLE, f"'{sys.executable}' '{SCRIPTED_ENGINE}'")
        reported: list[Event | EngineExited] = []
        client = EngineClient(reported.append, log_path=tmp_path / "engine.log")
        await asyncio.gather(client.start(), client.start())
        await until(lambda: bool(reported))
        await client.close()
        assert [type(event) for event in reported] == [Ready, EngineExited]

    @pytest.mark.parametrize(
        ("cores", "given", "expected"), [(1, None, "2"), (2, None, "2"), (64, None, None), (2, "7", "7")]
    )
    async def test_small_machines_bound_the_workers_of_gptqmodel(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        cores: int,
        given: str | None,
        expected: str | None,
    ) -> None:
        monkeypatch.delenv("GPTQMODEL_CPU_WORKERS", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        env = {"GPTQMODEL_CPU_WORKERS": given} if given else {}
        reported: list[Event | EngineExited] = []
        code = """
import os, sys
print(os.environ.get("GPTQMODEL_CPU_WORKERS"), os.getsid(0) == os.getpid(), file=sys.stderr)
"""
        client = EngineClient(
            reported.append, command=[sys.executable, "-c", code], log_path=tmp_path / "engine.log", env=env
        )
        await client.start()
        await until(lambda: bool(reported))
        assert [event.log_tail for event in reported if isinstance(event, EngineExited)] == [f"{expected} True"]


class TestLog:
    async def test_the_tail_is_short_and_free_of_control_characters(self, tmp_path: Path) -> None:
        log = tmp_path / "engine.log"
        log.write_text("from an earlier run\n")
        code = r"""
import sys
print("old\n" * 100, file=sys.stderr)
for step in range(5): print(f"\rloading {step}", end="", file=sys.stderr)
print("\n\x1b[1;31mred\x1b[0m \x1b]0;title\x07bell\x07 \u202ereversed\tend", file=sys.stderr)
sys.stderr.buffer.write(b"\xff\xfe\n")
"""
        reported: list[Event | EngineExited] = []
        client = EngineClient(reported.append, command=[sys.executable, "-c", code], log_path=log)
        await client.start()
        await until(lambda: bool(reported))
        exited = reported[-1]
        assert isinstance(exited, EngineExited)
        lines = exited.log_tail.split("\n")
        assert lines[-3:] == ["loading 4", "red bell reversed end", "\ufffd\ufffd"]
        assert len(lines) == client_module.TAIL_LINES
        assert "earlier" not in exited.log_tail

    async def test_the_log_is_private_and_old_ones_are_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path))
        folder = tmp_path / "state" / "logs"
        client = EngineClient(lambda _: None, command=["true"])
        await client.start()
        await client.close()
        (log,) = folder.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        for number in range(20):
            old = folder / f"engine-0{number}.log"
            old.touch()
            os.utime(old, (number, number))
        await client.start()
        await client.close()
        left = {path.name for path in folder.iterdir()}
        assert left == {log.name, *(f"engine-0{number}.log" for number in range(13, 20))}

    async def test_a_folder_that_cannot_be_written_costs_only_the_log(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        reported: list[Event | EngineExited] = []
        client = EngineClient(reported.append, command=["false"], log_path=tmp_path / "file" / "engine.log")
        await client.start()
        await until(lambda: bool(reported))
        assert reported == [EngineExited(code=1, signal=None, log_tail="", expected=False)]


async def until(condition: Callable[[], bool], patience: float = 10.0) -> None:
    # The conditions are about processes and plain lists, which set no event.
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestStartCancelled:
    """At every step of the loop: before the process, before its pipes are connected, after that."""

    @pytest.mark.parametrize("steps", range(9))
    async def test_it_ends_at_once_and_leaves_no_process(self, tmp_path: Path, steps: int) -> None:
        client = EngineClient(lambda _event: None, command=waiting(tmp_path), log_path=tmp_path / "log")
        starting = asyncio.ensure_future(client.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(starting, return_exceptions=True)
            await client.close(0)
        psutil.wait_procs(running(tmp_path), timeout=20)
        assert not running(tmp_path)

    def test_it_ends_with_its_loop(self, tmp_path: Path) -> None:
        script = textwrap.dedent(f"""
            import asyncio
            from pathlib import Path
            from quantchat.engine.client import EngineClient

            async def leave(client, steps):
                starting = asyncio.create_task(client.start())
                for _ in range(steps):
                    await asyncio.sleep(0)
                return starting

            for steps in range(1, 9, 3):
                # The runner cancels what is left, asyncio's own tasks too.
                client = EngineClient(print, command={waiting(tmp_path)!r}, log_path=Path({str(tmp_path / "log")!r}))
                asyncio.run(leave(client, steps))
                client.kill()
        """)
        # What asyncio had half made then, it leaves to the garbage collector, with a warning.
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60, stderr=subprocess.DEVNULL
        )
        psutil.wait_procs(running(tmp_path), timeout=20)
        assert not running(tmp_path)


def waiting(folder: Path) -> list[str]:
    """A process that reads until its pipe is closed, recognised by its last argument."""
    return [sys.executable, "-c", "input()", str(folder)]


def running(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if command_line(process)[-1:] == [str(folder)]]
