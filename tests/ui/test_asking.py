"""How a session asks: system prompt, single sampling values, seed, chat template; all of it per session and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from quantchat import paths
from quantchat.domain.generation import SamplingOverrides
from quantchat.store.schema import decode_session
from quantchat.ui.screens.presets import PresetScreen
from quantchat.ui.screens.sampling import SamplingScreen
from quantchat.ui.screens.template import TemplateScreen
from quantchat.ui.screens.words import AskScreen, WordsScreen
from quantchat.ui.widgets.rows import RowList
from quantchat.ui.widgets.words import Words
from ui.rig import SIZES, Rig, running

Patch = pytest.MonkeyPatch
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def notices(rig: Rig) -> str:
    return "\n".join(str(notice.message) for notice in rig.app._notifications)


async def told(rig: Rig, words: str) -> None:
    await rig.until(lambda: words in notices(rig), words)


def meaning(rig: Rig) -> str:
    return str(rig.app.screen.query_one("#meaning").render())


# The system prompt


@pytest.mark.parametrize("size", SIZES)
async def test_a_system_prompt_is_written_shown_kept_and_sent(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        await rig.ask("/system")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen) and rig.app.screen.query(Words))
        await rig.pilot.press(*"Be", "ctrl+j", *"brief", "enter")
        await rig.until(lambda: rig.chat.session.system_prompt == "Be\nbrief")
        await rig.until(lambda: "+system" in rig.line("header") or size[0] < 100)
        await rig.ask("hello")
        (answer,) = await rig.answered()
        assert answer.statistics is not None
        # <system> Be brief </>, <user> hello </>, <assistant>
        assert answer.statistics.prompt_tokens == 8
        session = rig.chat.session
        await rig.ask("/new")
        await rig.until(lambda: rig.chat.session is not session)
        assert rig.chat.session.system_prompt == ""
    stored = decode_session((tmp_path / "home" / "data" / "sessions" / f"{session.id}.json").read_bytes())
    assert stored.system_prompt == "Be\nbrief"


async def test_a_system_prompt_is_typed_behind_the_command_and_taken_away(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, config='system_prompt = "From the settings."\n') as rig:
        assert rig.chat.session.system_prompt == "From the settings."
        await rig.ask("/system Answer in French.")
        await rig.until(lambda: rig.chat.session.system_prompt == "Answer in French.")
        await rig.ask("/system")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen) and rig.app.screen.query(Words))
        assert rig.app.screen.query_one(Words).text == "Answer in French."
        rig.app.screen.query_one(Words).load("")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.system_prompt == "")
        await told(rig, "none any more")
        await rig.ask("/system")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen) and rig.app.screen.query(Words))
        rig.app.screen.query_one(Words).load("thrown away")
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
        assert rig.chat.session.system_prompt == ""


async def test_a_system_prompt_can_change_while_an_answer_streams(tmp_path: Path, monkeypatch: Patch) -> None:
    answers = {"answers": [{"match": "slow", "text": "word " * 400, "tokens_per_second": 50}]}
    async with running(tmp_path, monkeypatch, answers) as rig:
        await rig.begin_slow()
        await rig.ask("/system Hurry.")
        await rig.until(lambda: rig.chat.session.system_prompt == "Hurry.")
        assert rig.chat.own_turn is not None
        await rig.pilot.press("escape")
        assert (await rig.answered())[0].finish == "stopped"


async def test_the_editor_writes_a_system_prompt(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("quantchat.ui.editor.edit_text", lambda _app, text: f"{text} and long")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/system")
        await rig.until(lambda: isinstance(rig.app.screen, WordsScreen) and rig.app.screen.query(Words))
        await rig.pilot.press(*"short", "ctrl+g")
        await rig.until(lambda: rig.app.screen.query_one(Words).text == "short and long")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.system_prompt == "short and long")


# Single values


async def test_single_values_are_set_by_command_and_sent(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.load()
        for typed in ("/set temperature 0.25", "/set top-k=7", '/set stop "###", "User:"', "/seed 42"):
            await rig.ask(typed)
        await rig.until(lambda: rig.chat.session.sampling.seed == 42)
        assert rig.chat.session.sampling == SamplingOverrides(temperature=0.25, top_k=7, stop=("###", "User:"), seed=42)
        await rig.until(lambda: "own*" in rig.line("header"))
        await rig.ask("hello")
        (answer,) = await rig.answered()
        assert answer.run is not None
        assert answer.run.sampling is not None
        assert (answer.run.sampling.temperature, answer.run.sampling.seed) == (0.25, 42)
        await rig.ask("/seed")
        await rig.until(lambda: rig.chat.session.sampling.seed is None)
        await rig.ask("/seed last")
        await rig.until(lambda: rig.chat.session.sampling.seed == 42)


REFUSED = [
    ("/set temprature 1", "Did you mean temperature"),
    ("/set temperature 99", "from 0 to 10"),
    ("/set temperature", "needs a value"),
    ("/seed [/x]", "a whole number"),
    ("/seed last", "There is no answer yet, and so no seed"),
    ("/save-preset mine", "sets no values"),
]


async def test_what_cannot_be_set_is_told_with_what_can(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        for typed, words in REFUSED:
            await rig.ask(typed)
            await told(rig, words)
        assert rig.chat.session.sampling == SamplingOverrides()


async def test_a_value_stands_over_its_preset_and_goes_back_to_it(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/preset precise")
        await rig.ask("/set temperature 1.5")
        await rig.until(lambda: "precise*" in rig.line("header"))
        await rig.ask("/set temperature default")
        await rig.until(lambda: "precise*" not in rig.line("header") and "precise" in rig.line("header"))
        assert rig.chat.session.sampling.temperature == 0.2


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 15), (20, 6)])
async def test_all_values_are_shown_with_their_source_and_changed(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    config = "[sampling]\ntop_k = 7\n"
    async with running(tmp_path, monkeypatch, size=size, config=config) as rig:
        await rig.ask("/preset precise")
        await rig.until(lambda: rig.chat.session.preset)
        rig.chat.action_sampling_values()
        await rig.until(lambda: isinstance(rig.app.screen, SamplingScreen) and rig.app.screen.query(RowList))
        rows = rig.app.screen.query_one(RowList)
        await rig.until(lambda: rows.option_count == 13)
        shown = {row.id: (row.name.split()[1], row.detail) for row in rows._rows}
        assert shown["temperature"] == ("0.2", "preset precise")
        assert shown["top_k"] == ("40", "preset precise")
        assert shown["max_new_tokens"] == ("1024", "default")
        frame = rig.app.screen.query_one(".dialog")
        assert rig.app.size.region.contains_region(frame.region)
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, AskScreen) and rig.app.screen.query(Input))
        field = rig.app.screen.query_one(Input)
        assert field.value == "0.2"
        field.value = "99"
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, SamplingScreen) and "from 0 to 10" in meaning(rig))
        if size[0] >= 80:
            await rig.until(
                lambda: "away." in "".join(line.text for line in rig.app.screen._compositor.render_strips())
            )
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, AskScreen) and rig.app.screen.query(Input))
        rig.app.screen.query_one(Input).value = "1.25"
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.chat.session.sampling.temperature == 1.25)
        await rig.until(lambda: rows._rows[0].detail == "this session")
        await rig.pilot.press("delete")
        await rig.until(lambda: rig.chat.session.sampling.temperature == 0.2)
        await rig.pilot.press("escape")


async def test_values_are_kept_as_a_preset_and_taken_away_again(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/set temperature 0.33")
        await rig.ask("/save-preset mine")
        await rig.until(lambda: rig.chat.session.preset == "mine")
        assert (paths.presets_dir() / "mine.toml").read_text() == "temperature = 0.33\n"
        await rig.ask("/new")
        await rig.ask("/preset MINE")
        await rig.until(lambda: rig.chat.session.sampling.temperature == 0.33)
        await rig.ask("/preset")
        await rig.until(lambda: isinstance(rig.app.screen, PresetScreen) and rig.app.screen.query(RowList))
        rows = rig.app.screen.query_one(RowList)
        assert rows.highlighted_id == "mine"
        await rig.pilot.press("k", "delete")
        await rig.until(lambda: "kept in quantchat itself" in meaning(rig))
        await rig.pilot.press("j", "delete")
        await rig.until(lambda: rig.app.screen.query(Static) and not isinstance(rig.app.screen, PresetScreen))
        await rig.pilot.press("y")
        await rig.until(lambda: "mine" not in [row.id for row in rows._rows])
        assert [path.read_text() for path in paths.trash_dir().iterdir()] == ["temperature = 0.33\n"]
        assert rig.chat.session.sampling.temperature == 0.33, "sessions keep what they were given"


async def test_names_of_values_are_completed(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: rig.chat.prompt.completer)
        rig.chat.prompt.load("/set tem")
        rig.chat.prompt.move_cursor((0, 8))
        await rig.pilot.press("p")
        await rig.until(lambda: rig.chat.prompt.completer and rig.chat.prompt.completer.open)
        await rig.pilot.press("tab")
        assert rig.chat.prompt.text == "/set temperature "
        await rig.pilot.press(*"0.5", "enter")
        await rig.until(lambda: rig.chat.session.sampling.temperature == 0.5)


# The chat template


@pytest.mark.parametrize("size", [(120, 40), (40, 15)])
async def test_a_template_is_taken_from_a_file_shown_and_put_back(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(TEMPLATE)
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.load()
        await rig.ask(f"/template {file}")
        await rig.until(lambda: rig.chat.session.template == TEMPLATE)
        await rig.until(lambda: "+template" in rig.line("header") or size[0] < 100)
        await rig.ask("/template")
        await rig.until(lambda: isinstance(rig.app.screen, TemplateScreen) and rig.app.screen.query("#sample"))
        sample = rig.app.screen.query_one("#sample", Static)
        await rig.until(lambda: "user: And of Italy?" in str(sample.content))
        await rig.pilot.press("o")
        await rig.until(lambda: rig.chat.session.template == "")


async def test_a_template_that_cannot_work_changes_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    file = tmp_path / "bad.jinja"
    file.write_text("{% for m in messages %}\x1b[31m{{ oops }")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask(f"/template {file}")
        words = await rig.dialog()
        assert "cannot be used" in words
        assert "\x1b" not in words
        assert rig.chat.session.template == ""


async def test_a_template_is_written_in_the_editor_from_the_models_own(tmp_path: Path, monkeypatch: Patch) -> None:
    seen = []

    def edit(_app: object, text: str) -> str:
        seen.append(text)
        return TEMPLATE

    monkeypatch.setattr("quantchat.ui.editor.edit_text", edit)
    async with running(tmp_path, monkeypatch) as rig:
        model = tmp_path / "models" / "alpha-GPTQ"
        (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
        await rig.load()
        await rig.ask("/template")
        await rig.until(lambda: isinstance(rig.app.screen, TemplateScreen) and rig.app.screen.query("#sample"))
        await rig.pilot.press("e")
        await rig.until(lambda: rig.chat.session.template == TEMPLATE)
        assert seen == ["{{ messages }}"]
        session = rig.chat.session
    stored = decode_session((tmp_path / "home" / "data" / "sessions" / f"{session.id}.json").read_bytes())
    assert stored.template == TEMPLATE
