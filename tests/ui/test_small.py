"""Small terminals and terminals that change their size all the time."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace
from textual.content import Content
from textual.events import Resize
from textual.geometry import Region, Size
from textual.widget import Widget

from quantchat.domain.models import ModelInfo, Problem, Verdict
from quantchat.errors import ErrorReport
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot, NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.facts import Notice
from quantchat.services.memory import MemoryView
from quantchat.ui.screens.actions import drafts
from quantchat.ui.screens.dialogs import ErrorScreen, Frame
from quantchat.ui.status import header_line, memory_texts, status_line
from quantchat.ui.views import model_rows
from quantchat.ui.widgets.rows import RowList
from scripted_run import MODEL, ScriptedHome, scripted
from ui.rig import Rig, running

__all__ = ["scripted"]

Patch = pytest.MonkeyPatch
GIB = 1024**3
LONG = {"answers": [{"match": "slow", "text": "words of an answer " * 400, "tokens_per_second": 50}]}
SIZES = [(80, 24), (40, 15), (20, 6)]


def gpu(index: int) -> GpuDevice:
    return GpuDevice(
        index=index,
        name="card",
        total=24 * GIB,
        used=10 * GIB,
        engine_bytes=9 * GIB,
        utilization=45,
        temperature=60,
        power=250.0,
    )


def view(gpus: int) -> MemoryView:
    found = GpuSnapshot(devices=tuple(gpu(index) for index in range(gpus))) if gpus else NotAvailable(reason="none")
    return MemoryView(gpus=found, host=HostMemory(total=64 * GIB, available=48 * GIB, used=16 * GIB))


# The bars


@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_the_status_bar_holds_memory_and_figures_at_every_width(gpus: int, width: int) -> None:
    figures = "40.5 tok/s  TTFT 0.12 s  ctx 46/8192"
    line = status_line(memory_texts(view(gpus)), "marlin cuda:0", figures, width).plain
    assert len(line) == width
    assert "GiB" in line
    assert "ctx 46/8192" in line
    assert ("tok/s" in line) or width < 60
    if width >= 200 and gpus < 3:
        assert "marlin" in line


def test_the_kernel_stands_in_the_header_where_the_status_bar_has_no_room() -> None:
    class Report:
        path = "/models/qwen"
        name = "Qwen2.5-7B-Instruct-GPTQ-Int4"
        kernel = "gptq_marlin"

    narrow = header_line("A title", Report(), "", 80)  # type: ignore[arg-type]
    assert "marlin" in narrow.plain
    assert "Qwen2.5-7B-Instruct-GPTQ-Int4" in narrow.plain
    assert "A title" in narrow.plain
    wide = header_line("A title", Report(), "", 120)  # type: ignore[arg-type]
    assert "marlin" not in wide.plain


@pytest.mark.parametrize("width", [120, 80, 40, 20])
def test_the_header_fits_and_keeps_its_note(width: int) -> None:
    title = "標題 " * 40
    line: Content = header_line(title, None, "  NOT SAVED", width)
    assert "NOT SAVED" in line.plain
    assert line.cell_length <= max(width, 30)


def test_a_model_of_unknown_size_shows_none() -> None:
    (row,) = model_rows([ModelInfo(path="/m", name="m")], lambda model: "broken", None)
    assert row.detail == "unquantized"


def test_a_model_that_lacks_a_package_is_told_from_a_broken_one() -> None:
    missing = Problem(code="package-missing", severity="error", cause="It needs aqlm.", remedy="Run: pip install aqlm")
    verdict = Verdict(state="with", install="pip install aqlm")
    models = [ModelInfo(path="/m", name="m", verdict=verdict, problems=(missing,))]
    damaged = Problem(code="x", severity="error", cause="It is cut off.", remedy="Download it again.")
    models.append(replace(models[0], path="/n", problems=(missing, damaged)))
    rows = model_rows(models, lambda model: "broken", None)
    assert [row.detail for row in rows] == ["needs a package", "cannot load"]


# Every part at every size


def inside(widget: Widget, screen: Region) -> bool:
    return bool(widget.region) and widget.region.intersection(screen) == widget.region


def assert_laid_out(rig: Rig) -> None:
    """The parts lie on the screen, over each other only where the sidebar may."""
    whole = rig.chat.size.region
    status, prompt = rig.chat.query_one("#status"), rig.chat.prompt
    assert status.region.bottom == whole.bottom
    assert inside(status, whole)
    assert inside(prompt, whole)
    assert prompt.region.bottom <= status.region.y
    assert rig.chat.transcript.region.bottom <= prompt.region.y
    assert rig.chat.transcript.region.height >= 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_question_is_asked_and_its_answer_seen_on_a_small_screen(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with running(tmp_path, monkeypatch, {"answers": [{"text": "Paris"}]}, size=size) as rig:
        await rig.pilot.press("ctrl+l")
        models = rig.chat.query_one("#models", RowList)
        await rig.until(lambda: models.has_focus and models.region)
        sidebar = rig.chat.query_one("#sidebar")
        await rig.until(lambda: sidebar.region.width == min(size[0], 60))
        assert models.region.height >= 1
        await rig.pilot.press("enter")
        await rig.until(lambda: rig.app.desk.library.loaded)
        await rig.ask("hi")
        await rig.answered()
        assert_laid_out(rig)
        transcript = rig.chat.transcript
        await rig.until(lambda: any("P" in transcript.render_line(y).text for y in range(transcript.size.height)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", ["f9", "ctrl+p", "f1", "f2", "f10"])
async def test_every_dialog_fits(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int], key: str) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        await rig.pilot.press(key)
        await rig.until(lambda: rig.app.screen is not rig.chat and rig.app.screen.query(".dialog"))
        frame = rig.app.screen.query_one(".dialog")
        await rig.until(lambda: frame.region)
        assert inside(frame, rig.app.size.region)
        assert str(frame.border_subtitle)
        rows = rig.app.screen.query(RowList)
        assert all(inside(found, frame.region) for found in rows)


@pytest.mark.parametrize("size", SIZES)
async def test_a_long_error_can_be_read_to_its_end(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    report = ErrorReport(code="x", title="It failed", detail="line\n" * 60, remedy="Do this")
    async with running(tmp_path, monkeypatch, size=size) as rig:
        rig.app._take(Notice(report=report, dialog=True))
        await rig.until(lambda: isinstance(rig.app.screen, ErrorScreen) and rig.app.screen.query(Frame))
        frame = rig.app.screen.query_one(Frame)
        await rig.until(lambda: frame.max_scroll_y > 30)
        assert inside(frame, rig.app.size.region)
        await rig.pilot.press("G")
        await rig.until(lambda: frame.scroll_y == frame.max_scroll_y)
        remedy = frame.query_one(".hint")
        assert inside(remedy, frame.region)
        await rig.pilot.press("g")
        await rig.until(lambda: frame.scroll_y == 0)


async def test_an_error_waits_while_a_prompt_is_written(tmp_path: Path, monkeypatch: Patch) -> None:
    """Letters that were typed as its dialog came up were lost."""
    report = ErrorReport(code="x", title="It failed")
    async with running(tmp_path, monkeypatch) as rig:
        monkeypatch.setattr(drafts, "WRITING_SECONDS", 3600.0)
        await rig.pilot.press(*"half")
        await rig.until(lambda: rig.chat.seconds_to_pause() > 0)
        rig.app._take(Notice(report=report, dialog=True))
        await rig.pilot.press(*" a thought")
        assert (rig.chat.prompt.text, rig.app.screen) == ("half a thought", rig.chat)
    monkeypatch.setattr(drafts, "WRITING_SECONDS", 0.05)
    async with running(tmp_path, monkeypatch) as rig:
        await rig.pilot.press(*"half")
        rig.app._take(Notice(report=report, dialog=True))
        assert "It failed" in await rig.dialog()


@pytest.mark.parametrize("size", [(12, 4), (4, 2), (1, 1)])
async def test_no_size_is_too_small_to_live(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with running(tmp_path, monkeypatch, size=size) as rig:
        for key in ("ctrl+l", "f9", "ctrl+p", "f1", "f2", "f10"):
            await rig.pilot.press(key)
            await rig.pilot.press("escape")
        await rig.load()
        await rig.ask("hi")
        await rig.answered()
        await rig.pilot.resize_terminal(80, 24)
        await rig.until(lambda: rig.chat.transcript.region.width == 80)
        assert_laid_out(rig)


async def test_rows_fit_a_list_that_was_hidden_when_it_changed(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, size=(40, 15)) as rig:
        # What asks for a place between a change and the next layout makes Textual forget the Resize event.
        rig.chat._compositor._full_map_invalidated = True
        rig.chat.add_class("-sidebar-over")
        models = rig.chat.query_one("#models", RowList)
        await rig.until(lambda: models.region.width == 40)
        await rig.until(lambda: "alpha-GPTQ" in models.render_line(0).text)
        assert models.render_line(0).text.rstrip().endswith("KiB")


# Sizes that change


def sizes(seed: int, count: int) -> list[tuple[int, int]]:
    random = Random(seed)
    return [(random.randint(1, 200), random.randint(1, 60)) for _ in range(count)]


async def test_a_hundred_sizes_while_an_answer_streams(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, monkeypatch, LONG, size=(120, 40)) as rig:
        await rig.load()
        for number in range(12):
            await rig.ask(f"question {number} " + "with a few more words " * 12)
            await rig.answered(number + 1)
        await rig.ask("be slow")
        await rig.until(lambda: rig.chat.own_turn and rig.chat.own_turn.tokens > 2)
        transcript = rig.chat.transcript
        rig.chat.set_focus(transcript)
        await rig.pilot.press("g", "pagedown")
        await rig.until(lambda: transcript.scroll_y > 10)
        before = [transcript.render_line(y).text for y in range(3)]
        for width, height in sizes(7, 100):
            rig.app.post_message(Resize(Size(width, height), Size(width, height)))
            if height % 7 == 0:
                await rig.pilot.pause(0)
        await rig.pilot.resize_terminal(80, 24)
        await rig.until(lambda: rig.chat.transcript.region.width == 80)
        assert_laid_out(rig)
        assert not transcript.following
        await rig.pilot.resize_terminal(120, 40)
        await rig.until(lambda: [transcript.render_line(y).text for y in range(3)] == before, "the same lines")
        assert rig.chat.own_turn
        assert_laid_out(rig)
        await rig.pilot.press("escape")
        await rig.answered(13)


def test_a_resize_storm_in_a_real_terminal(scripted: ScriptedHome) -> None:
    terminal = scripted.start_loaded(answers=LONG["answers"], columns=100, lines=30)
    terminal.type("be slow")
    terminal.press("enter")
    terminal.wait_for("Esc stops")
    for width, height in sizes(11, 100):
        terminal.resize(max(width, 2), max(height, 2))
        terminal.pump(0.001)
    terminal.resize(80, 24)
    terminal.wait_for(lambda text: "tok/s" in text.splitlines()[-1] and "GiB" in text.splitlines()[-1])
    terminal.wait_for(lambda text: "words of an answer" in text and "▁▁▁" in text and MODEL in text.splitlines()[0])
    terminal.press("esc")
    terminal.wait_for("stopped")
    terminal.press("ctrl+q")
    assert terminal.wait_exit() == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (3, 40), (4, 10), (120, 1)])
async def test_a_terminal_of_a_few_cells_ends_nothing(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    """The empty prompt left no cell for its placeholder, and the program ended."""
    async with running(tmp_path, monkeypatch) as rig:
        await rig.pilot.resize_terminal(*size)
        for key in ("f1", "escape", "ctrl+p", "escape", "f6", "escape", "f8", "x"):
            await rig.pilot.press(key)
        await rig.pilot.resize_terminal(80, 24)
        await rig.until(lambda: rig.chat.prompt.text == "x", "the letter")
