"""Measuring a model from the screen: what is asked, how far it is, what the sidebar and the info panel say after."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from textual.widgets import Static

from quantchat.domain.quality import Quality
from quantchat.domain.sections import Section
from quantchat.store.quality import FILE, add_quality, load_quality
from quantchat.ui.screens.choose import ChooseScreen
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.screens.info import InfoScreen
from quantchat.ui.screens.quality import QualityScreen
from quantchat.ui.views import model_row
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.models import ModelList
from quantchat.ui.widgets.rows import RowList, fit_row
from scripted_quality import DIVERGENCE
from ui.rig import Rig, running
from unit.catalog.model_folders import make_dense, make_gptq

FAST: dict[str, object] = {"answers": [{"text": "word " * 100, "tokens_per_second": 2000}]}
HELD: dict[str, object] = {"load": {"seconds": 60}, "answers": [{"text": "word " * 100, "tokens_per_second": 2000}]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    make_dense(folder / "alpha")
    make_gptq(folder / "alpha-GPTQ-4bit")
    make_gptq(folder / "alpha-GPTQ-8bit", bits=8)
    return folder


def words(rig: Rig) -> str:
    return str(rig.app.screen.query_one("#quality", Static).content)


async def ask_for(rig: Rig, name: str) -> ChooseScreen:
    await rig.ask(f"/evaluate {name}")
    await rig.until(lambda: isinstance(rig.app.screen, ChooseScreen) and rig.app.screen.query(RowList), "the question")
    assert isinstance(rig.app.screen, ChooseScreen)
    return rig.app.screen


async def evaluate(rig: Rig, name: str) -> None:
    """Measure a model against what is proposed."""
    await ask_for(rig, name)
    await rig.pilot.press("enter")
    await rig.until(lambda: isinstance(rig.app.screen, QualityScreen), "the screen of qualities")
    await rig.until(lambda: rig.app.desk.quality.last and rig.app.desk.quality.last.ended, "the end")


async def test_a_model_is_measured_against_what_it_was_made_from(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, FAST) as rig:
        screen = await ask_for(rig, "alpha-GPTQ-4bit")
        assert screen.query_one(RowList).highlighted_id == str(models / "alpha")
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, QualityScreen), "the screen of qualities")
        await rig.until(lambda: f"{DIVERGENCE[4]:.4f}" in words(rig), "the figure")
        assert "KL from alpha" in words(rig)
        assert load_quality(str(models / "alpha-GPTQ-4bit"))[0].divergence == DIVERGENCE[4]
        await rig.pilot.press("escape")
        await rig.until(lambda: not isinstance(rig.app.screen, QualityScreen), "the chat")
        rows = rig.chat.query_one(ModelList)
        await rig.until(
            lambda: any(row.note == "KL 0.060" for row in rows._rows if "4bit" in row.id), "the mark in the sidebar"
        )


async def test_several_quantizations_stand_in_one_chart(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, FAST) as rig:
        for name in ("alpha-GPTQ-4bit", "alpha-GPTQ-8bit"):
            await evaluate(rig, name)
            await rig.pilot.press("escape")
            await rig.until(lambda: not isinstance(rig.app.screen, QualityScreen), "the chat")
        await rig.ask("/quality")
        await rig.until(lambda: isinstance(rig.app.screen, QualityScreen) and "alpha-GPTQ-8bit" in words(rig), "both")
        shown = words(rig).splitlines()
        assert [line.split()[0] for line in shown if "-GPTQ-" in line] == ["A", "B"]
        marked = [line for line in shown if line.rstrip().endswith(("A", "B")) and ("│" in line or "┤" in line)]
        assert [line.rstrip()[-1] for line in marked] == ["B", "A"]


async def test_an_evaluation_goes_on_behind_the_chat_and_is_cancelled(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, HELD) as rig:
        await ask_for(rig, "alpha-GPTQ-4bit")
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, QualityScreen), "the screen of qualities")
        await rig.pilot.press("escape")
        await rig.until(lambda: "measuring" in rig.line("status"), "the status bar")
        await rig.until(lambda: "Measuring alpha" in rig.line("activity"), "the line above the prompt")
        await rig.ask("/evaluate alpha-GPTQ-8bit")
        await rig.until(lambda: isinstance(rig.app.screen, QualityScreen), "the one that runs")
        await rig.pilot.press("x")
        last = rig.app.desk.quality.last
        await rig.until(lambda: last is not None and last.ended == "cancelled", "the end")
        assert "Cancelled" in rig.app.screen.query_one("#quality-progress", Line).plain
        assert rig.app.desk.quality.running is None
        assert not (models / "alpha-GPTQ-4bit" / FILE).exists()


async def test_leaving_ends_it(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, HELD) as rig:
        await ask_for(rig, "alpha-GPTQ-4bit")
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.desk.quality.running, "the evaluation")
        last = rig.app.desk.quality.last
        await rig.app.desk.close()
        assert last is not None
        assert last.ended == "cancelled"


async def test_a_failure_is_told(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"code": "kernel", "title": "The [kernel] broke", "detail": "It cannot be built", "remedy": ""}
    async with running(tmp_path, monkeypatch, {"load": {"fail": error}}) as rig:
        await evaluate(rig, "alpha-GPTQ-4bit")
        line = rig.app.screen.query_one("#quality-progress", Line)
        await rig.until(lambda: "The [kernel] broke" in line.plain, "the reason")


async def test_without_room_beside_the_chat_unloading_is_offered(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, FAST) as rig:
        await rig.load("alpha-GPTQ-8bit")
        from quantchat.errors import ErrorReport

        refused = ErrorReport(code="too-big", title="alpha finds no room", detail="It needs 9 GiB")
        monkeypatch.setattr("quantchat.services.comparing.room.too_big", lambda *_: refused)
        await ask_for(rig, "alpha-GPTQ-4bit")
        await rig.pilot.press("enter")
        await rig.until(lambda: isinstance(rig.app.screen, ConfirmScreen), "the question")
        assert "alpha finds no room beside alpha-GPTQ-8bit" in str(rig.app.screen.query_one(Static).content)
        await rig.pilot.press("y")
        await rig.until(lambda: rig.app.desk.quality.last and rig.app.desk.quality.last.ended, "the end")
        assert rig.app.desk.library.loaded is None
        assert rig.app.desk.quality.last.ended == "done"


async def test_what_lies_beside_the_models_is_shown_at_the_start(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Quality(
        perplexity=21.5,
        tokens=100,
        text="a \x1b[31mtext",
        text_sha256="0",
        window=64,
        divergence=0.0123,
        reference="[b]base",
        measured="2026-05-01T10:00:00Z",
    )
    add_quality(str(models / "alpha-GPTQ-4bit"), measured)
    (models / "alpha-GPTQ-8bit" / FILE).write_bytes(b"{")
    async with running(tmp_path, monkeypatch, FAST) as rig:
        rows = rig.chat.query_one(ModelList)
        await rig.until(lambda: [row.note for row in rows._rows if row.note] == ["KL 0.012"], "the mark")
        await rig.ask("/info alpha-GPTQ-4bit")
        await rig.until(lambda: isinstance(rig.app.screen, InfoScreen) and rig.app.screen.complete, "the panel")
        panel = rig.app.screen
        assert isinstance(panel, InfoScreen)
        (section,) = [part for part in panel.sections if part.title == "Quality"]
        assert section.rows[0].label == "2026-05-01"
        assert "KL 0.0123 from [b]base" in section.rows[0].value
        assert "\x1b" not in str(panel.query_one("#info", Static).content)


async def test_nothing_measured_is_said_and_a_broken_model_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, FAST, size=(40, 20)) as rig:
        await rig.ask("/quality")
        await rig.until(
            lambda: isinstance(rig.app.screen, QualityScreen) and "Nothing was measured" in words(rig), "the words"
        )
        await rig.pilot.press("escape")
        await rig.ask("/evaluate no-such-model")
        await rig.until(lambda: any("No model is called" in note.message for note in rig.app._notifications), "a toast")


def test_the_mark_takes_the_place_of_the_size_and_gives_way_to_the_name(models: Path) -> None:
    from quantchat.catalog.reader import read_model

    row = model_row(read_model(models / "alpha-GPTQ-4bit"), "fits", None, "KL 0.060")
    wide, usual, small = (fit_row(row, width).plain for width in (60, 36, 20))
    assert "alpha-GPTQ-4bit" in wide
    assert wide.endswith(f"KL 0.060 {row.detail}")
    assert usual.endswith("GPTQ 4b g128 KL 0.060")
    assert "KL" not in small


@pytest.mark.parametrize(
    "changes",
    [
        {"divergence": 1e308, "bits": 1e299, "perplexity": 1e299},
        {"divergence": -1.0},
        {"agreement": 7.0},
        {"tokens": 0},
        {"device_bytes": -5},
        {"quantization": "\x1b[31m[b]" * 50, "text": "\u202e" * 500, "kernel": "k" * 5000, "measured": "\n\n"},
    ],
)
def test_figures_from_anywhere_neither_break_the_screen_nor_leave_it(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    from quantchat.catalog.reader import read_model
    from quantchat.services.quality import Measured, current, quality_rows
    from quantchat.ui.screens.info import info_content
    from quantchat.ui.screens.quality import group_content

    monkeypatch.setenv("QUANTCHAT_HOME", str(tmp_path / "home"))
    values: dict[str, object] = {"perplexity": 9.0, "tokens": 9, "text": "t", "text_sha256": "0", "window": 9}
    path = str(models / "alpha-GPTQ-4bit")
    add_quality(path, Quality(**(values | {"divergence": 0.5, "bits": 4.0} | changes)))  # type: ignore[arg-type]
    model = read_model(Path(path))
    for quality in current(model):
        lines = [line.plain for line in group_content([Measured(model, quality)], 76, 20)]
        assert all(len(line) <= 76 and line.isprintable() for line in lines)
        panel = info_content([Section(title="Quality", rows=tuple(quality_rows([quality])))], 76).plain
        assert all(len(line) <= 76 and line.isprintable() for line in panel.split("\n"))
        assert len(quality.short()) <= 12


@pytest.mark.parametrize("width", [37, 60, 76, 120])
def test_a_table_fits_its_room(models: Path, width: int) -> None:
    from quantchat.catalog.reader import read_model
    from quantchat.services.quality import Measured, table

    quality = Quality(
        perplexity=25.4,
        tokens=3000,
        text="t",
        text_sha256="0",
        window=512,
        divergence=0.0612,
        reference="alpha",
        agreement=0.71,
        disk_bytes=114_000_000,
        device_bytes=1_100_000_000,
        tokens_per_second=28.9,
        quantization="GPTQ 4b g128",
        bits=4.16,
    )
    long = msgspec.structs.replace(read_model(models / "alpha-GPTQ-4bit"), name="owner/A-model-of-a-long-name-4bit")
    head, row = table([Measured(long, quality)], width)
    assert len(head) == len(row) <= width
    assert row.startswith("A  owner/")
    assert "4bit  " in row
    assert {"model", "KL", "ppl"} <= set(head.split())
    assert ("memory" in head) == (width == 120)
