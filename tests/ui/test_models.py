"""The list of models: filtered by typing, sorted, grouped, brought up to date; and the folders that they come from."""

from __future__ import annotations

import json
import shutil
import threading
import tomllib
from pathlib import Path

import pytest
from textual.content import Content
from textual.events import Paste
from textual.widgets import Input

from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.services import scanning
from quantchat.store.state import UiState
from quantchat.ui.screens import folders
from quantchat.ui.screens.folders import FoldersScreen
from quantchat.ui.shelf import Shelf, Wanted, matches
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.path import FolderField
from quantchat.ui.widgets.rows import RowList
from ui.rig import SIZES, Rig, running
from unit.catalog.model_folders import make_dense, make_gptq

Patch = pytest.MonkeyPatch
NAMES = ["Gemma-2B-GPTQ", "Llama-8B-AWQ", "Llama-8B-GPTQ", "Qwen2-7B-GPTQ"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in NAMES:
        make_gptq(tmp_path / "models" / name)
    return tmp_path


def names(rig: Rig) -> list[str]:
    """The rows that are shown, headings in brackets."""
    rows = rig.chat.query_one(ModelList)._rows
    return [row.name if row.enabled else f"[{row.name}]" for row in rows]


async def in_list(rig: Rig) -> ModelList:
    await rig.until(lambda: len(rig.app.desk.library.models) == 4, "models")
    await rig.pilot.press("ctrl+l")
    models = rig.chat.query_one(ModelList)
    await rig.until(lambda: models.has_focus and len(names(rig)) == 4)
    return models


@pytest.mark.parametrize("size", SIZES)
async def test_letters_filter_the_list(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        models = await in_list(rig)
        await rig.pilot.press(*"LLama")
        assert names(rig) == ["Llama-8B-AWQ", "Llama-8B-GPTQ"]
        assert "LLama" in str(models.border_title)
        assert "2 of 4" in str(models.border_subtitle)
        await rig.pilot.press("space", "minus", *"gp")
        assert names(rig) == ["Llama-8B-GPTQ"]
        await rig.pilot.press(*["backspace"] * 4)
        assert len(names(rig)) == 2
        assert (models.highlighted_id or "").endswith("Llama-8B-GPTQ"), "what was highlighted stays so"
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.desk.library.loaded, "the model that was found")
        assert rig.app.desk.library.model is not None
        assert rig.app.desk.library.model.name == "Llama-8B-GPTQ"
        await rig.until(lambda: len(names(rig)) == 4, "all models again")
        assert rig.chat.prompt.text == ""


@pytest.mark.parametrize("size", SIZES)
async def test_the_keys_of_lists_stay_until_a_filter_is_begun(
    folder: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        models = await in_list(rig)
        await rig.pilot.press("G")
        assert (models.highlighted_id or "").endswith(NAMES[-1])
        await rig.pilot.press("g", "j")
        assert (models.highlighted_id or "").endswith(NAMES[1])
        assert models.filter == ""
        await rig.pilot.press("slash", *"gemma")
        assert names(rig) == ["Gemma-2B-GPTQ"]
        await rig.pilot.press("j")
        assert names(rig) == []
        assert models.option_count == 1, "a word about it"
        await rig.pilot.press("escape")
        assert len(names(rig)) == 4
        assert models.has_focus
        await rig.pilot.press("escape")
        assert rig.chat.focused is rig.chat.prompt


async def test_a_filter_is_no_markup(folder: Path, monkeypatch: Patch) -> None:
    make_gptq(folder / "models" / "[b] 日本語モデル[red]")
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: len(names(rig)) == 5)
        models = rig.chat.query_one(ModelList)
        await rig.pilot.press("ctrl+l", "slash", *"[B]")
        assert names(rig) == ["[b] 日本語モデル[red]"]
        assert models._border_title == Content("Models: [B]▏")
        await rig.pilot.press(*["backspace"] * 3, *"日本")
        assert names(rig) == ["[b] 日本語モデル[red]"]
        await rig.pilot.press(*["backspace"] * 2, *"[/b]")
        assert (names(rig), models.filter) == ([], "[/b]")


async def test_a_list_that_grows_stays_where_the_reader_is(folder: Path, monkeypatch: Patch) -> None:
    for number in range(80):
        make_gptq(folder / "models" / f"M{number:02}")
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: len(names(rig)) == 84)
        models = rig.chat.query_one(ModelList)
        await rig.pilot.press("ctrl+l")
        await rig.until(lambda: models.has_focus)
        rows = [row.name for row in models._rows]
        models.highlighted = rows.index("M40")
        models.scroll_to(y=rows.index("M30"), animate=False, immediate=True)
        await rig.until(lambda: models.scroll_offset.y == rows.index("M30"))
        make_gptq(folder / "models" / "A-new-one")
        rig.chat.action_rescan()
        await rig.until(lambda: "A-new-one" in names(rig))
        await rig.pilot.pause()
        assert (models.highlighted_id or "").endswith("M40")
        assert models.scroll_offset.y == rows.index("M30") + 1


@pytest.mark.parametrize("size", SIZES)
async def test_long_and_wide_names_fit_into_their_row(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    make_gptq(folder / "models" / ("語" * 80))
    make_gptq(folder / "models" / ("long-" * 50))
    async with running(folder, monkeypatch, size=size) as rig:
        await rig.until(lambda: len(names(rig)) == 6)
        await rig.pilot.press("ctrl+l")
        models = rig.chat.query_one(ModelList)
        await rig.until(lambda: models.has_focus and models.size.width)
        width = models.scrollable_content_region.width
        drawn = [models.render_line(place) for place in range(6)]
        assert {strip.cell_length for strip in drawn} == {width}
        assert all("4b" in strip.text for strip in drawn), "the details stay"


async def test_one_model_and_none(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    only = make_gptq(tmp_path / "models" / "only")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.until(lambda: names(rig) == ["only"])
        shutil.rmtree(only)
        rig.chat.action_rescan()
        await rig.until(lambda: names(rig) == [] and not rig.app.desk.library.scanner.scanning)
        rig.chat.draw_models()
        models = rig.chat.query_one(ModelList)
        assert "/folders" in models.empty
        await rig.pilot.press("ctrl+l", "j", "enter", "S", "slash", "x", "escape")
        assert names(rig) == []


async def test_a_filter_goes_with_the_focus(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        models = await in_list(rig)
        await rig.pilot.press("q", "w")
        assert names(rig) == ["Qwen2-7B-GPTQ"]
        await rig.pilot.press("f3")
        await rig.until(lambda: len(names(rig)) == 4)
        assert str(models.border_title) == "Models"


async def test_esc_stops_an_answer_while_nothing_is_filtered(folder: Path, monkeypatch: Patch) -> None:
    slow = {"answers": [{"match": "slow", "text": "word " * 400, "tokens_per_second": 50}]}
    async with running(folder, monkeypatch, slow) as rig:
        await rig.load("Gemma")
        await rig.ask("be slow")
        await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens > 2, "a streaming answer")
        await in_list(rig)
        await rig.pilot.press("q", "escape")
        assert rig.chat.own_turn is not None, "the first Esc ends the filter"
        await rig.pilot.press("escape")
        (answer,) = await rig.answered()
        assert answer.finish == "stopped"


@pytest.mark.parametrize("size", SIZES)
async def test_the_order_is_chosen_kept_and_shown(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    make_dense(folder / "models" / "Llama-8B-AWQ")
    async with running(folder, monkeypatch, size=size) as rig:
        models = await in_list(rig)
        await rig.pilot.press("S")
        assert "largest first" in str(models.border_subtitle)
        sizes = {model.name: model.weight_bytes for model in rig.app.desk.library.models}
        assert [sizes[name] for name in names(rig)] == sorted(sizes.values(), reverse=True)
        rig.chat.action_sort_models("used")
        await rig.load("Qwen2")
        await rig.load("Gemma")
        await rig.until(lambda: names(rig)[:2] == ["Gemma-2B-GPTQ", "Qwen2-7B-GPTQ"], "last used first")
        rig.chat.action_sort_models("age")
        await rig.until(lambda: any("name, size, fit, used" in notice.message for notice in rig.app._notifications))
    state = json.loads((folder / "home" / "state" / "state.json").read_text())
    assert state["models_order"] == "used"
    async with running(folder, monkeypatch, size=size) as rig:
        await rig.until(lambda: names(rig)[:2] == ["Gemma-2B-GPTQ", "Qwen2-7B-GPTQ"], "the order of before")


async def test_models_of_several_roots_stand_below_headings(folder: Path, monkeypatch: Patch) -> None:
    make_gptq(folder / "more" / "owner" / "Zephyr")
    make_gptq(folder / "home" / "data" / "models" / "demo")
    async with running(folder, monkeypatch, config='models_dirs = ["~/more"]\n') as rig:
        await rig.until(lambda: len(rig.app.desk.library.models) == 6)
        await rig.until(lambda: len(names(rig)) == 9)
        assert names(rig) == ["[Made by quantchat]", "demo", "[~/models]", *NAMES, "[~/more]", "Zephyr"]
        await rig.pilot.press("ctrl+l", "g")
        models = rig.chat.query_one(ModelList)
        assert (models.highlighted_id or "").endswith("/demo")
        await rig.pilot.press("j")
        assert (models.highlighted_id or "").endswith(NAMES[0]), "headings are passed over"
        await rig.pilot.press("S")
        assert len(names(rig)) == 6, "another order goes across all roots"


async def test_changes_on_the_disk_appear(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(scanning, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(scanning, "WATCH_SHARE", 1.0)
    async with running(folder, monkeypatch) as rig:
        await rig.until(lambda: len(names(rig)) == 4)
        make_gptq(folder / "models" / "New-GPTQ")
        await rig.until(lambda: "New-GPTQ" in names(rig), "the new model")


async def test_nothing_looks_for_changes_while_the_list_is_not_shown(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(scanning, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(scanning, "WATCH_SHARE", 1.0)
    async with running(folder, monkeypatch, size=(80, 24)) as rig:
        await rig.until(lambda: len(rig.app.desk.library.models) == 4 and rig.app.desk.library.scanner.due)
        make_gptq(folder / "models" / "New-GPTQ")
        rig.chat.draw_memory()
        assert rig.app.desk.library.scanner.due, "no look was begun"
        await rig.pilot.press("ctrl+l")
        await rig.until(lambda: "New-GPTQ" in names(rig), "the new model")


# The folders


async def opened(rig: Rig) -> FoldersScreen:
    await rig.until(lambda: isinstance(rig.app.screen, FoldersScreen) and rig.app.screen.query(FolderField))
    screen = rig.app.screen
    assert isinstance(screen, FoldersScreen)
    await rig.until(lambda: screen.query_one(RowList)._rows, "the folders")
    return screen


def said(screen: FoldersScreen) -> str:
    return screen.query_one("#meaning", Line).plain


def kept(folder: Path) -> list[str]:
    found: list[str] = tomllib.loads((folder / "home" / "config" / "config.toml").read_text())["models_dirs"]
    return found


@pytest.mark.parametrize("size", SIZES)
async def test_a_folder_is_added_and_taken_out(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    make_gptq(folder / "more" / "Zephyr")
    config = '# kept\nmodels_dirs = ["~/gone"]  # an old disk\n'
    async with running(folder, monkeypatch, size=size, config=config) as rig:
        await rig.until(lambda: len(rig.app.desk.library.models) == 4)
        await rig.ask("/folders")
        screen = await opened(rig)
        assert [row.detail for row in screen.query_one(RowList)._rows] == ["there is no such folder", "--models-dir"]
        field = screen.query_one(FolderField)
        field.value = "~/mo"
        await rig.until(lambda: field._names == ["models/", "more/"], "completions")
        await rig.pilot.press("down", "tab")
        assert field.value == "~/more/"
        await rig.pilot.press("enter")
        await rig.until(lambda: "Zephyr" in names(rig), "the models of the new folder")
        assert kept(folder) == ["~/gone", "~/more/"]
        assert field.value == ""
        await rig.until(lambda: "Added" in said(screen))
        rows = screen.query_one(RowList)
        rig.app.screen.set_focus(rows)
        await rig.pilot.press("g", "j", "delete")
        await rig.until(lambda: "Zephyr" not in names(rig), "the models are gone")
        assert kept(folder) == ["~/gone"]
        assert (folder / "more" / "Zephyr").exists()
        await rig.pilot.press("G", "delete")
        await rig.until(lambda: "Only folders that you added" in said(screen))
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)
    text = (folder / "home" / "config" / "config.toml").read_text()
    assert "# kept" in text
    assert "# an old disk" in text


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_wrong_is_said_at_once(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        rig.chat.action_folders()
        screen = await opened(rig)
        field = screen.query_one(FolderField)
        for typed, words in (("~/absent", "no such folder"), ("~/models", "already"), ("", "Type its path")):
            field.value = typed
            await rig.pilot.press("enter")
            await rig.until(lambda words=words: words in said(screen), words)  # type: ignore[misc]
            assert field.value == typed
        assert not (folder / "home" / "config" / "config.toml").exists()
        (folder / "home" / "config").mkdir(exist_ok=True)
        (folder / "home" / "config" / "config.toml").write_text("theme = \n")
        (folder / "fine").mkdir()
        field.value = "~/fine"
        await rig.pilot.press("enter")
        await rig.until(lambda: "does not parse" in said(screen))
        assert (folder / "home" / "config" / "config.toml").read_text() == "theme = \n"


async def test_folders_that_are_written_twice_or_of_nobody(folder: Path, monkeypatch: Patch) -> None:
    config = 'models_dirs = ["~/gone", "~/gone", "~nobody-here/x", "", "~/gone/"]\n'
    async with running(folder, monkeypatch, config=config) as rig:
        await rig.until(lambda: len(rig.app.desk.library.models) == 4)
        rig.chat.action_folders()
        screen = await opened(rig)
        written = [row.name for row in screen.query_one(RowList)._rows]
        assert written[:2] == ["~/gone", "~nobody-here/x"]
        assert len(written) == len(set(written))


@pytest.mark.parametrize("hanging", ["check_folder", "known_folders"])
async def test_a_disk_that_hangs_keeps_nobody_in_the_dialog(folder: Path, monkeypatch: Patch, hanging: str) -> None:
    asked, end = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        end.wait()

    monkeypatch.setattr(folders, hanging, hang)
    try:
        async with running(folder, monkeypatch) as rig:
            await rig.until(lambda: len(rig.app.desk.library.models) == 4)
            rig.chat.action_folders()
            await rig.until(lambda: isinstance(rig.app.screen, FoldersScreen) and rig.app.screen.query(FolderField))
            field = rig.app.screen.query_one(FolderField)
            field.value = "~/silent"
            await rig.pilot.press("enter")
            await rig.until(asked.is_set)
            await rig.pilot.press("x")
            assert field.value == "~/silentx"
            await rig.pilot.press("escape")
            await rig.until(lambda: rig.app.screen is rig.chat)
    finally:
        end.set()


async def test_esc_closes_the_completions_first(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        rig.chat.action_folders()
        screen = await opened(rig)
        field = screen.query_one(FolderField)
        field.value = "~/mod"
        await rig.until(lambda: field._names, "completions")
        await rig.pilot.press("escape")
        assert rig.app.screen is screen
        assert field._names == []
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat)


@pytest.mark.parametrize("size", [*SIZES, (40, 15), (20, 6)])
async def test_the_dialog_fits(folder: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(folder, monkeypatch, size=size) as rig:
        rig.chat.action_folders()
        screen = await opened(rig)
        frame = screen.query_one(".dialog")
        await rig.until(lambda: screen.query_one(Input).region)
        assert rig.app.size.region.contains_region(frame.region)
        assert frame.region.contains_region(screen.query_one(Input).region)


# The rows


def model(name: str, **what: object) -> ModelInfo:
    return ModelInfo(path=f"/m/{name}", name=name, root="/m", **what)  # type: ignore[arg-type]


def test_what_a_filter_looks_at() -> None:
    found = model("owner/Name", architecture="LlamaForCausalLM", quant=QuantSpec(method="awq", bits=4))
    assert matches(found, ["owner", "4b"])
    assert matches(found, [])
    assert not matches(found, ["owner", "llama"])


def test_what_fits_comes_first() -> None:
    fits = {"a": "too big", "b": "fits", "c": "broken", "d": "tight", "e": None, "f": "fits"}
    models = [model(name) for name in fits]
    rows = Shelf().rows(models, lambda one: fits[one.name], None, Wanted("fit"))  # type: ignore[return-value, arg-type]
    assert [row.name for row in rows] == ["b", "f", "d", "e", "a", "c"]


def test_a_row_is_made_anew_only_when_it_changed() -> None:
    shelf, models = Shelf(), [model("a"), model("b")]
    first = shelf.rows(models, lambda one: "fits", None, Wanted())
    second = shelf.rows(models, lambda one: "fits" if one.name == "a" else "tight", None, Wanted())
    assert second[0] is first[0]
    assert second[1] != first[1]


def test_the_models_used_longest_ago_are_forgotten() -> None:
    state = UiState()
    for number in range(600):
        state.used_models = state.used_with(f"/{number}", float(number))
    assert (len(state.used_models), min(state.used_models.values())) == (500, 100.0)


def test_names_of_models_are_no_markup_and_command_no_terminal() -> None:
    (row,) = Shelf().rows([model("[red]\x1b[31mx")], lambda one: None, None, Wanted())
    assert "\x1b" not in row.name


async def test_a_list_that_is_sorted_shows_its_top_and_its_keys(folder: Path, monkeypatch: Patch) -> None:
    for number in range(40):
        make_gptq(folder / "models" / f"M{number:02}")
    make_dense(folder / "models" / "Z-largest")
    async with running(folder, monkeypatch, size=(80, 24)) as rig:
        await rig.until(lambda: len(names(rig)) == 45, "models")
        models = rig.chat.query_one(ModelList)
        await rig.pilot.press("ctrl+l", "down")
        await rig.until(lambda: "I info" in str(models.border_subtitle), "the keys")
        await rig.pilot.press("S")
        assert models.highlighted == 0
        assert models.scroll_y == 0
        assert not rig.app._notifications, "the lower edge says it"
        await rig.pilot.press("escape")
        await rig.until(lambda: not rig.chat.shows_models, "the chat alone")
        await rig.until(lambda: "I info" not in str(models.border_subtitle), "no keys where they do not work")
        rig.chat.action_sort_models("name")
        await rig.until(lambda: rig.app._notifications, "a notice")
        assert [notice.message for notice in rig.app._notifications] == ["Models: by name"]


async def test_lines_that_are_pasted_into_the_filter_are_words_of_it(folder: Path, monkeypatch: Patch) -> None:
    async with running(folder, monkeypatch) as rig:
        models = await in_list(rig)
        models.post_message(Paste("8b\rllama-8b-gp\r"))
        await rig.until(lambda: names(rig) == ["Llama-8B-GPTQ"], "the only one with both")
