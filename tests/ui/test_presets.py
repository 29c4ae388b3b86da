"""Sampling presets: chosen by command, chooser, palette and completion; kept, shown and sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.content import Content

from quantchat.domain.presets import SHIPPED
from quantchat.errors import SessionLocked
from quantchat.services.archive import Archive
from quantchat.store.schema import decode_session
from quantchat.ui.screens.palette import PaletteScreen
from quantchat.ui.screens.presets import PresetScreen
from quantchat.ui.status import header_line
from quantchat.ui.widgets.rows import RowList
from ui.rig import SIZES, Rig, running

Patch = pytest.MonkeyPatch
OWN = """
[sampling]
top_k = 7
stop = ["###"]

[presets.careful]
temperature = 0.1
no_repeat_ngram = 4

[presets.careful.logit_bias]
"As an AI" = -100.0

[presets.precise]
temperature = 0.3

[presets."odd [b] name"]
min_p = 0.1
"""


def notices(rig: Rig) -> str:
    return "\n".join(str(notice.message) for notice in rig.app._notifications)


async def opened(rig: Rig) -> PresetScreen:
    await rig.until(lambda: isinstance(rig.app.screen, PresetScreen) and rig.app.screen.query(RowList), "the presets")
    assert isinstance(rig.app.screen, PresetScreen)
    return rig.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_a_preset_is_chosen_shown_and_sent(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size, config=OWN) as rig:
        await rig.load()
        await rig.ask("/preset")
        rows = (await opened(rig)).query_one(RowList)
        assert rows.highlighted_id == "default"
        assert rows.option_count == len(SHIPPED) + 2
        await rig.pilot.press("G", "k")
        assert rows.highlighted_id == "careful"
        assert "temperature 0.1, no-repeat-ngram 4" in str(rig.app.screen.query_one("#meaning").render())
        await rig.pilot.press("enter")
        await rig.until(lambda: "careful" in rig.line("header"), "the preset in the header")
        await rig.ask("hello")
        (answer,) = await rig.answered()
        assert answer.run is not None
        sampling = answer.run.sampling
        assert sampling is not None
        assert (sampling.temperature, sampling.no_repeat_ngram, sampling.top_k) == (0.1, 4, 7)
        assert (sampling.logit_bias, sampling.stop) == ({"As an AI": -100.0}, ("###",))


async def test_a_preset_stays_with_its_session(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, config=OWN) as rig:
        await rig.load()
        await rig.ask("/preset Precise")
        await rig.until(lambda: "precise" in rig.line("header"))
        await rig.ask("hello")
        await rig.answered()
        first = rig.chat.session
        assert first.sampling.temperature == 0.3, "the user's own preset of that name comes first"
        await rig.ask("/new")
        await rig.until(lambda: rig.chat.session is not first)
        assert "precise" not in rig.line("header")
        assert rig.chat.session.preset == ""
    stored = decode_session((tmp_path / "home" / "data" / "sessions" / f"{first.id}.json").read_bytes())
    assert (stored.preset, stored.sampling) == ("precise", first.sampling)
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.choose_session(first.id)
        await rig.until(lambda: "precise" in rig.line("header"))
        await rig.ask("/preset default")
        await rig.until(lambda: "precise" not in rig.line("header"))
        assert rig.chat.session.sampling == SHIPPED["default"]


async def test_a_preset_alone_makes_no_session_file(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/preset creative")
        await rig.until(lambda: "creative" in rig.line("header"))
        await rig.chat.refresh_sessions()
        assert rig.chat.summaries == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_name_that_is_none_is_told_with_the_likely_one(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        for typed, told in (("creatif", "Did you mean creative?"), ("[/x]\x1bfoo", "There are default, exact")):
            rig.chat.action_preset(typed)
            await rig.until(lambda told=told: told in notices(rig), told)  # type: ignore[misc]
        assert "\x1b" not in notices(rig)
        assert rig.chat.session.preset == ""


@pytest.mark.parametrize("size", SIZES)
async def test_the_names_are_completed_behind_the_command(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size, config=OWN) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        rig.chat.prompt.load("/preset c")
        rig.chat.prompt.move_cursor((0, 9))
        await rig.pilot.press("r")
        completer = rig.chat.prompt.completer
        assert completer is not None
        assert completer.open
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.preset == "creative")
        assert rig.chat.prompt.text == ""
        rig.chat.prompt.load("/preset odd [b] nam")
        rig.chat.prompt.move_cursor((0, 19))
        await rig.pilot.press("tab", "tab")
        assert rig.chat.prompt.text == "/preset odd [b] name"
        await rig.pilot.press("enter")
        await rig.until(lambda: "odd [b] name" in rig.line("header"))


async def test_the_palette_offers_presets(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, config=OWN) as rig:
        await rig.pilot.press("ctrl+p")
        await rig.until(lambda: isinstance(rig.app.screen, PaletteScreen) and rig.app.screen.query(RowList))
        await rig.pilot.press(*"preset: caref")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.preset == "careful")


async def test_a_session_that_is_held_elsewhere_keeps_its_sampling(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        await rig.ask("hello")
        await rig.answered()
        held = rig.chat.session.id
    async with running(tmp_path, monkeypatch) as holder:
        holder.chat.choose_session(held)
        archive = Archive(lambda _fact: None)
        session = archive.open(held)
        with pytest.raises(SessionLocked):
            archive.use_preset(held, "exact", SHIPPED["exact"])
        assert (session.preset, session.sampling) == ("", SHIPPED["default"])
        await archive.close()


async def test_wrong_presets_are_named_at_the_start(tmp_path: Path, monkeypatch: Patch) -> None:
    config = "[presets.mine]\ntemperature = 99.0\ntop_p = 0.5\n\n[presets.yours]\ntemprature = 1.0\n"
    async with running(tmp_path, monkeypatch, config=config) as rig:
        words = await rig.dialog()
        assert "presets.mine.temperature" in words
        assert "line 2" in words
        assert "did you mean `temperature`" in words
        assert rig.chat.desk.presets["mine"].top_p == 0.5


@pytest.mark.parametrize("size", [*SIZES, (40, 15), (20, 6)])
async def test_the_chooser_fits(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size, config=OWN) as rig:
        rig.chat.action_preset()
        screen = await opened(rig)
        frame, rows = screen.query_one(".dialog"), screen.query_one(RowList)
        await rig.until(lambda: rows.region)
        assert rig.app.size.region.contains_region(frame.region)
        assert frame.region.contains_region(rows.region)


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_the_header_keeps_its_note_beside_a_long_preset(width: int) -> None:
    line: Content = header_line("標題 " * 40, None, "  NOT SAVED", width, "a preset with \x1b[31m a very long name")
    assert "NOT SAVED" in line.plain
    assert "\x1b" not in line.plain
    assert line.cell_length <= max(width, 30)
    assert ("a preset" in line.plain) == (width >= 60)
