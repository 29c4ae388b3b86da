"""The prompt library: found by typing, its fields asked for, written and deleted in its own screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input, Static

from quantchat import paths
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.screens.fields import FieldsScreen
from quantchat.ui.screens.prompts import PromptsScreen
from quantchat.ui.screens.words import AskScreen, WordsScreen
from quantchat.ui.widgets.rows import RowList
from quantchat.ui.widgets.words import Words
from ui.rig import Rig, running

Patch = pytest.MonkeyPatch
PROMPTS = {
    "review": "Look at this {language} code:\n{code}",
    "shorter": "Say it shorter.",
    "odd [b]\u200bname": "not a name that is read",
}


@pytest.fixture(autouse=True)
def _library(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "config" / "prompts"
    folder.mkdir(parents=True)
    for name, text in PROMPTS.items():
        (folder / f"{name}.md").write_text(text)


async def opened(rig: Rig) -> RowList:
    await rig.until(lambda: isinstance(rig.app.screen, PromptsScreen) and rig.app.screen.query(RowList), "the library")
    rows = rig.app.screen.query_one(RowList)
    await rig.until(lambda: rows.highlighted_id)
    return rows


async def fields(rig: Rig) -> Words:
    await rig.until(lambda: isinstance(rig.app.screen, FieldsScreen) and rig.app.screen.query(Words), "the fields")
    return rig.app.screen.query_one(Words)


def labels(rig: Rig) -> tuple[str, str]:
    """What is written already, and the field that is asked for."""
    written, field = (rig.app.screen.query_one(f"#{name}", Static) for name in ("written", "field"))
    return str(written.content), str(field.content)


@pytest.mark.parametrize("size", [(80, 24), (40, 15)])
async def test_a_prompt_is_chosen_and_its_fields_filled(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.pilot.press("alt+p")
        rows = await opened(rig)
        assert [row.id for row in rows._rows] == ["review", "shorter"]
        frame = rig.app.screen.query_one(".dialog")
        assert rig.app.size.region.contains_region(frame.region)
        await rig.pilot.press(*"code", "enter")
        await fields(rig)
        assert labels(rig) == ("", "language  1 of 2")
        await rig.pilot.press(*"Ruby", "enter")
        assert labels(rig) == ("language: Ruby", "code  2 of 2")
        await rig.pilot.press(*"fn", "shift+tab")
        words = await fields(rig)
        assert words.text == "Ruby"
        words.load("Rust")
        await rig.pilot.press("enter", *" a()", "ctrl+j", *"fn b()", "enter")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.prompt.text == "Look at this Rust code:\nfn a()\nfn b()"
        assert rig.chat.prompt.has_focus


async def test_a_prompt_is_named_behind_the_command(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        rig.chat.prompt.load("/prompts sho")
        rig.chat.prompt.move_cursor((0, 12))
        await rig.pilot.press("r", "enter")
        await rig.until(lambda: rig.chat.prompt.text == "Say it shorter.")
        await rig.ask("/prompts shortr")
        notices = rig.app._notifications
        await rig.until(lambda: any("Did you mean shorter" in str(notice.message) for notice in notices))


async def test_what_stands_in_the_prompt_fills_the_first_field(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.prompt.focus()
        await rig.pilot.press(*"C++", "alt+p")
        await opened(rig)
        await rig.pilot.press("enter")
        words = await fields(rig)
        assert words.text == "C++"
        await rig.pilot.press("enter")
        paste = "\n".join(f"line {number}" for number in range(30))
        words.paste(paste)
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.prompt.text == "Look at this C++ code:\n[paste 1: 30 lines]"
        assert paste in rig.chat.prompt.draft.expanded()


async def test_nothing_happens_to_the_prompt_if_nothing_is_chosen(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        rig.chat.prompt.focus()
        await rig.pilot.press(*"words", "alt+p")
        await opened(rig)
        await rig.pilot.press("enter")
        await fields(rig)
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.prompt.text == "words"


async def test_a_prompt_is_written_changed_and_deleted(tmp_path: Path, monkeypatch: Patch) -> None:
    written = iter(["Explain {topic}.", "Explain {topic} simply."])
    monkeypatch.setattr("quantchat.ui.editor.edit_text", lambda _app, _text: next(written))
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/prompts")
        rows = await opened(rig)
        await rig.pilot.press("ctrl+n")
        await rig.until(lambda: isinstance(rig.app.screen, AskScreen) and rig.app.screen.query(Input))
        await rig.pilot.press(*"explain", "enter")
        await rig.until(lambda: rows.highlighted_id == "explain")
        file = paths.prompts_dir() / "explain.md"
        assert file.read_text() == "Explain {topic}.\n"
        await rig.pilot.press("ctrl+g")
        await rig.until(lambda: file.read_text() == "Explain {topic} simply.\n")
        await rig.until(lambda: rows.highlighted_id == "explain")
        await rig.pilot.press("f10")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: "explain" not in [row.id for row in rows._rows])
        assert not file.exists()
        kept = sorted(path.read_text() for path in paths.trash_dir().iterdir())
        assert kept == ["Explain {topic} simply.\n", "Explain {topic}.\n"]


async def test_a_prompt_of_the_library_becomes_the_system_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/system")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen) and rig.app.screen.query(Words))
        await rig.pilot.press("ctrl+p")
        await opened(rig)
        await rig.pilot.press(*"shorter", "enter")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen))
        await rig.until(lambda: rig.app.screen.query_one(Words).text == "Say it shorter.")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.system_prompt == "Say it shorter.")
