"""Programs that stand in the settings as interpreters, and never become an engine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from client_rig import SCRIPTED_ENGINE
from quantchat.domain.backends import EngineSpec, Interpreters
from quantchat.domain.models import ModelInfo
from quantchat.engine import client
from quantchat.engine.client import EngineClient
from quantchat.errors import EngineGone
from quantchat.services.facts import Fact, Notice
from quantchat.services.headless import Headless
from quantchat.services.library import Library
from quantchat.services.loads import LoadOptions

MODEL = ModelInfo(path="/m/dense", name="dense")
TITLE = "The interpreter of the engine cannot run it"

programs = pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param("exit 0", "exit code 0", id="says nothing"),
        pytest.param("echo no such option >&2; exit 1", "no such option", id="complains"),
        pytest.param("echo Welcome to this environment; exec sleep 60", "out of step", id="greets"),
    ],
)


def options(folder: Path, program: str) -> LoadOptions:
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    return LoadOptions(interpreters=Interpreters(python=str(python)))


@programs
async def test_a_command_blames_the_interpreter(tmp_path: Path, program: str, said: str) -> None:
    """Was “The engine is not running. Send again to start it.”"""
    async with Headless(options=options(tmp_path, program)) as engine:
        with pytest.raises(EngineGone) as failed:
            await engine.load(MODEL, lambda _status: None)
    assert failed.value.report.title == TITLE
    assert said in failed.value.report.detail
    assert str(tmp_path / "python") in failed.value.report.detail
    assert "config.toml" in failed.value.report.remedy


async def test_one_that_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was waited for without end."""
    monkeypatch.setattr(client, "READY_SECONDS", 0.01)
    async with Headless(options=options(tmp_path, "exec sleep 600")) as engine:
        with pytest.raises(EngineGone) as failed:
            await engine.load(MODEL, lambda _status: None)
    assert failed.value.report.title == TITLE
    assert "It said nothing for 0.01 s" in failed.value.report.detail
    assert str(tmp_path / "python") in failed.value.report.detail


async def test_one_that_spoke_has_all_the_time_it_wants(tmp_path: Path) -> None:
    spoke = asyncio.Event()
    engine = EngineClient(
        lambda _event: spoke.set(),
        command=[sys.executable, str(SCRIPTED_ENGINE)],
        log_path=tmp_path / "engine.log",
        spec=EngineSpec(backend="retired", python=sys.executable),
    )
    await engine.start()
    assert engine._link is not None
    limit = engine._link._silence
    assert limit is not None
    await spoke.wait()
    assert limit.cancelled()
    await engine.close()


@programs
async def test_the_screen_is_told_once(tmp_path: Path, program: str, said: str) -> None:
    """Was two messages, of which one took SIGKILL for full memory."""
    facts: list[Fact] = []
    library = Library(facts.append, options=options(tmp_path, program))
    ended = asyncio.Event()
    library.on_turn_event = lambda _event: ended.set()
    await library.load(MODEL)
    await ended.wait()
    await asyncio.sleep(0)
    await library.close(0)
    notices = [fact for fact in facts if isinstance(fact, Notice)]
    assert [(notice.report.title, notice.dialog) for notice in notices] == [(TITLE, True)]
    assert said in notices[0].report.detail
    assert "memory" not in notices[0].report.sentence()
    assert library.loading is None
