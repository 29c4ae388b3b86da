"""Waiting for memory, from the prompt to the load."""

from __future__ import annotations

from pathlib import Path

import pytest

from ui.rig import SLOW, Rig, running


def loaded_name(rig: Rig) -> str:
    report = rig.chat.desk.library.loaded
    return report.name if report else ""


async def test_a_load_that_has_room_lets_the_answer_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, SLOW) as rig:
        await rig.begin_slow()
        await rig.ask("/whenfree beta")
        await rig.until(lambda: "after this answer" in rig.chat.desk.wait_line(), "the wait for the answer")
        assert rig.chat.own_turn is not None
        await rig.until(lambda: "beta" in loaded_name(rig), "the other model")
        (answer,) = await rig.answered()
        assert answer.finish != "stopped"
        assert len(answer.text.split()) == 400
        assert rig.chat.desk.wait_line() == ""


async def test_more_than_there_is_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: any("beta" in model.name for model in rig.chat.desk.library.models), "the model")
        await rig.ask("/whenfree beta 9999 GiB")
        await rig.until(lambda: any("never free" in notice.message for notice in rig.app._notifications), "the reason")
        assert rig.chat.desk.wait_line() == ""
        assert rig.chat.desk.library.phase != "loading"


async def test_a_loaded_model_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        loaded = rig.chat.desk.library.loaded
        for words in ("/whenfree", "/whenfree alpha"):
            await rig.ask(words)
            await rig.until(lambda: any("is loaded" in notice.message for notice in rig.app._notifications))
            assert rig.chat.desk.wait_line() == ""
            rig.app.clear_notifications()
        assert rig.chat.desk.library.loaded is loaded
