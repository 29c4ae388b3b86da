"""Programs that stand in the settings as interpreters, and never become an engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quantchat.domain.backends import Interpreters
from quantchat.domain.models import ModelInfo
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
