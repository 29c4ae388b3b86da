"""How checks are run: side by side, each for its own time, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import psutil
import pytest

from doctor.rig import doctor, only
from quantchat.services.doctor.checks import CHECKS, Check, examine
from quantchat.services.doctor.findings import Finding, report, summary, text
from quantchat.services.doctor.machine import Machine

FINE = Finding(id="fine", title="Fine", found="all is well")


def fine(machine: Machine) -> Iterator[Finding]:
    yield FINE


def breaks(machine: Machine) -> Iterator[Finding]:
    yield FINE
    raise RuntimeError("the disk is on fire")


async def run(*checks: Check, machine: Machine | None = None) -> dict[str, tuple[Finding, ...]]:
    return {check.id: found async for check, found in examine(machine or Machine(), checks)}


async def test_a_check_that_breaks_keeps_what_it_saw_and_stops_no_other() -> None:
    found = await run(Check("bad", "bad thing", breaks), Check("good", "good", fine))
    assert found["good"] == (FINE,)
    first, second = found["bad"]
    assert first == FINE
    assert (second.id, second.level) == ("bad.unfinished", "yellow")
    assert "RuntimeError: the disk is on fire" in second.found


async def test_a_check_that_hangs_has_its_own_time() -> None:
    go_on = threading.Event()

    def hangs(machine: Machine) -> Iterator[Finding]:
        yield FINE
        go_on.wait(30)

    found = await run(Check("slow", "slow", hangs, 0.2), Check("good", "good", fine))
    go_on.set()
    assert [finding.id for finding in found["slow"]] == ["fine", "slow.unfinished"]
    assert "No answer within" in found["slow"][1].found
    assert found["good"] == (FINE,)


async def test_findings_come_as_they_are_found_and_the_loop_stays_free() -> None:
    first_seen = threading.Event()

    def waits(machine: Machine) -> Iterator[Finding]:
        assert first_seen.wait(10)
        yield FINE

    order = []
    async with aclosing(examine(Machine(), [Check("late", "late", waits), Check("early", "early", fine)])) as done:
        async for check, _ in done:
            order.append(check.id)
            first_seen.set()
    assert order == ["early", "late"]


async def test_leaving_early_ends_the_programs_that_were_started(tmp_path: Path) -> None:
    pid_file, machine = tmp_path / "pid", Machine()
    script = f"echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; sleep 100; true"

    def sleeps(machine: Machine) -> Iterator[Finding]:
        machine.run("sh", "-c", script, seconds=60)
        yield FINE

    async with aclosing(examine(machine, [Check("good", "good", fine), Check("sleeps", "sleeps", sleeps)])) as done:
        await anext(done)
        await asyncio.to_thread(wait_for, pid_file)
        sleeping = psutil.Process(int(pid_file.read_text()))
    assert psutil.wait_procs([sleeping], timeout=5)[1] == []
    assert machine.run("true") is None, "nothing starts any more"


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_program_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    ran = Machine().run("sh", "-c", "echo $$; sleep 100; true", seconds=0.3)
    assert time.monotonic() - began < 50
    assert ran is not None
    assert ran.status is None
    assert not psutil.pid_exists(int(ran.out))


def test_programs_are_started_outside_the_current_folder(tmp_path: Path) -> None:
    ran = Machine().run("pwd")
    assert ran is not None
    assert ran.out == "/\n"
    assert Machine().run(str(tmp_path / "no-such-program")) is None


def test_a_fact_is_found_once_for_all_who_ask() -> None:
    calls: list[int] = []

    def models() -> tuple[()]:
        calls.append(1)
        time.sleep(0.01)
        return ()

    machine = Machine(models=models)
    threads = [threading.Thread(target=machine.models) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_names_of_checks_and_findings_are_told_apart() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)


def test_nothing_that_was_found_commands_the_terminal() -> None:
    evil = Finding(id="x", title="a\x1b]0;t\x07b\nc", level="red", found="d\x1b[31me\r\n\u202ef", fix="rm x\x1b[0m\nls")
    shown = text([evil])
    assert not set(shown) & set("\x1b\x07\r\u202e")
    assert shown.splitlines()[1:] == ["    rm x[0m", "    ls"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_words_break_at_the_width_and_commands_do_not(width: int) -> None:
    long = Finding(id="x", title="Title", found="word " * 50, fix="command " * 40)
    *words, command = long.lines(width)
    assert all(len(line) <= width for line in words)
    assert " ".join(" ".join(words).split()) == f"✓ Title {'word ' * 50}".strip()
    assert command.strip() == ("command " * 40).strip()


def test_the_worst_decides(env: dict[str, str]) -> None:
    levels = [FINE, msgspec.structs.replace(FINE, level="red"), msgspec.structs.replace(FINE, level="yellow")]
    assert report(levels).worst == "red"
    assert report([]).worst == "green"
    assert summary(levels) == "1 red, 1 yellow, 1 green"
    yellow = env | {"GPTQMODEL_KERNEL_REBUILD": "1"}
    assert doctor(*only("environment"), env=yellow).status == 0
    assert doctor(*only("environment"), "--strict", env=yellow).status == 1
    assert doctor(*only("environment"), "--strict", env=env).status == 0
    assert os.environ.get("GPTQMODEL_KERNEL_REBUILD") is None
