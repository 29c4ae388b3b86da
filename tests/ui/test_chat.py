"""The main screen over the scripted engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ui.rig import SIZES, running


@pytest.mark.parametrize("size", SIZES)
async def test_a_prompt_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        await rig.ask("Hello there")
        (answer,) = await rig.answered()
        assert "Hello there" in answer.text
        assert answer.finish == "stop"
        assert rig.chat.prompt.text == ""
