"""The form of a quantization and its job over the scripted engine: examined, started, watched, cancelled, ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Static

from quantchat.domain.memory import GIB, MIB
from quantchat.hardware.gpu import NotAvailable
from quantchat.hardware.host import HostMemory
from quantchat.services.memory import MemoryView
from quantchat.services.quantizing.job import QuantizeJob
from quantchat.ui.jobs import percent
from quantchat.ui.screens.choose import ChooseScreen
from quantchat.ui.screens.dialogs import ConfirmScreen
from quantchat.ui.screens.job import JobScreen
from quantchat.ui.screens.pull import PullScreen
from quantchat.ui.screens.quantize import START, QuantizeScreen
from quantchat.ui.screens.words import AskScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.modules import LogList, ModuleList
from quantchat.ui.widgets.rows import RowList
from ui.rig import Rig, running
from unit.catalog.model_folders import make_dense, make_gptq

Patch = pytest.MonkeyPatch
SIZES = [(80, 24), (40, 20)]
BASE = "base-135M"


class Form:
    """The form as a person sees it."""

    def __init__(self, rig: Rig, screen: QuantizeScreen) -> None:
        self.rig, self.screen = rig, screen

    @property
    def rows(self) -> RowList:
        return self.screen.query_one("#settings", RowList)

    @property
    def words(self) -> str:
        return str(self.screen.query_one("#preflight Static", Static).content)

    @property
    def hint(self) -> str:
        return str(self.screen.query_one(".dialog").border_subtitle)

    @property
    def meaning(self) -> str:
        return self.screen.query_one("#meaning", Line).plain

    async def examined(self) -> None:
        await self.rig.until(lambda: self.screen.preflight, f"a preflight; {self.words!r}")

    async def set(self, name: str, key: str = "right") -> None:
        self.rows.go_to(name)
        await self.rig.pilot.press(key)


class Job:
    """The view of a job as a person sees it."""

    def __init__(self, rig: Rig, screen: JobScreen) -> None:
        self.rig, self.screen = rig, screen

    @property
    def job(self) -> QuantizeJob:
        return self.screen.job

    @property
    def hint(self) -> str:
        return str(self.screen.query_one(".dialog").border_subtitle)

    @property
    def ending(self) -> str:
        return str(self.screen.query_one("#ending Static", Static).content)

    def line(self, name: str) -> str:
        return self.screen.query_one(f"#{name}", Line).plain

    async def ended(self) -> None:
        await self.rig.until(lambda: self.job.state.ended and self.screen.has_class("-ended"), "the end of the job")


async def shown(rig: Rig, kind: type) -> None:
    await rig.until(lambda: isinstance(rig.app.screen, kind) and rig.app.screen.is_mounted, kind.__name__)


@asynccontextmanager
async def with_form(folder: Path, patch: Patch, *, name: str = BASE, **how: object) -> AsyncIterator[Form]:
    make_gptq(folder / "models" / "alpha-GPTQ")
    make_dense(folder / "models" / BASE)
    async with running(folder, patch, **how) as rig:  # type: ignore[arg-type]
        yield await opened(rig, name)


async def opened(rig: Rig, name: str = "") -> Form:
    await rig.ask(f"/quantize {name}".strip())
    await shown(rig, QuantizeScreen)
    assert isinstance(rig.app.screen, QuantizeScreen)
    return Form(rig, rig.app.screen)


async def started(form: Form) -> Job:
    await form.examined()
    await form.rig.pilot.press("s")
    return await watched(form.rig)


async def watched(rig: Rig) -> Job:
    await shown(rig, JobScreen)
    assert isinstance(rig.app.screen, JobScreen)
    return Job(rig, rig.app.screen)


def held(folder: Path, **more: object) -> dict[str, object]:
    """A job that waits in the middle until the file `go` is there."""
    return {"quantize": {"hold": str(folder / "go"), **more}}


# The form


@pytest.mark.parametrize("size", SIZES)
async def test_a_plan_is_examined_at_every_change(tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]) -> None:
    async with with_form(tmp_path, monkeypatch, size=size) as form:
        await form.examined()
        assert "LlamaForCausalLM" in form.words
        assert "GPTQ 4b g64" in form.words
        frame = form.screen.query_one(".dialog")
        assert form.rig.app.size.region.contains_region(frame.region)
        for part in (form.rows, form.screen.query_one("#preflight"), form.screen.query_one("#meaning")):
            assert frame.region.contains_region(part.region)
            assert part.region.height >= 2
        await form.set("bits")
        await form.rig.until(lambda: "GPTQ 8b g64" in form.words, "the other bits")
        await form.set("group-size")
        await form.rig.until(lambda: not form.screen.preflight or form.screen.preflight.errors, "a refusal")
        await form.rig.until(lambda: "128" in form.words and "✗" in form.words, "groups that do not fit")
        await form.rig.pilot.press("s")
        assert isinstance(form.rig.app.screen, QuantizeScreen)
        assert "128" in form.meaning


async def test_values_are_typed_where_they_are_not_chosen(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        for typed, shown_value in (("0.05", "0.05"), ("much", "0.05")):
            await form.set("damping", "enter")
            await shown(form.rig, AskScreen)
            field = form.rig.app.screen.query_one(Field)
            field.value = typed
            await form.rig.pilot.press("enter")
            await shown(form.rig, QuantizeScreen)
            assert f"{form.screen.plan.recipe.damping:g}" == shown_value
        assert "is not a number" in form.meaning


async def test_another_model_is_chosen_of_those_that_can_be_quantized(tmp_path: Path, monkeypatch: Patch) -> None:
    other = make_dense(tmp_path / "models" / "other-7B")
    async with with_form(tmp_path, monkeypatch) as form:
        await form.set("source", "enter")
        await shown(form.rig, ChooseScreen)
        frame, hint = form.rig.app.screen.query_one(".dialog"), form.rig.app.screen.query_one("#meaning", Line)
        await form.rig.until(lambda: frame.region.x > 0 and frame.region.y > 0, "the dialog in the middle")
        assert len(hint.plain) <= hint.size.width * hint.size.height
        rows = form.rig.app.screen.query_one(RowList)
        assert [row.name for row in rows._rows] == [BASE, "other-7B"]
        await form.rig.pilot.press("7", "b", "enter")
        await shown(form.rig, QuantizeScreen)
        assert form.screen.plan.source == str(other)


async def test_own_sessions_are_chosen_for_calibration(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        await form.set("calibration", "enter")
        await shown(form.rig, ChooseScreen)
        await form.rig.pilot.press(*"20", "enter")
        await shown(form.rig, QuantizeScreen)
        await form.rig.until(lambda: form.screen.plan.sessions, "the sessions")
        assert form.screen.plan.sessions is not None
        assert form.screen.plan.sessions.last == 20


async def test_the_form_is_as_it_was_left(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        await form.set("bits")
        await form.rig.pilot.press("escape")
        again = await opened(form.rig)
        assert again.screen.plan.recipe.bits == 8
        assert again.screen.plan.source.endswith(BASE)


async def test_a_quantized_model_is_refused_with_a_reason(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, name="alpha") as form:
        await form.examined()
        assert form.screen.preflight is not None
        assert not form.screen.preflight.possible
        assert "quantized" in form.words


def crowd(rig: Rig, patch: Patch, held: int) -> None:
    """Let the machine have little memory, of which the loaded model holds some."""

    async def look(_pid: int | None) -> MemoryView:
        taken = held if rig.app.desk.library.loaded is not None else 0
        host = HostMemory(32 * GIB, 31 * GIB + taken, 4 * GIB - taken)
        return MemoryView(gpus=NotAvailable("none"), host=host, engine_host_bytes=taken)

    patch.setattr(rig.app.desk.memory, "look", look)


async def test_the_model_that_chats_is_unloaded_where_the_job_needs_its_memory(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        await form.rig.pilot.press("escape")
        await form.rig.load()
        crowd(form.rig, monkeypatch, held=4 * GIB - MIB)
        form = await opened(form.rig, BASE)
        await form.rig.until(lambda: "u unloads the chat model" in form.hint, "the offer")
        assert "the loaded model holds" in form.words
        await form.rig.pilot.press("s")
        assert isinstance(form.rig.app.screen, QuantizeScreen)
        await form.rig.pilot.press("u")
        await form.rig.until(lambda: form.screen.preflight and form.screen.preflight.possible, "room")
        assert form.rig.app.desk.library.loaded is None
        assert "u unloads" not in form.hint


async def test_a_job_is_begun_in_spite_of_too_little_room(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        await form.examined()
        crowd(form.rig, monkeypatch, held=0)
        monkeypatch.setattr("quantchat.services.quantizing.room.usable", lambda _free: MIB)
        await form.set("bits")
        await form.rig.until(lambda: "f in spite of it" in form.hint, "the offer")
        await form.rig.pilot.press("f")
        await form.rig.until(lambda: form.screen.preflight and form.screen.preflight.possible, "leave")
        assert "!" in form.words
        await form.rig.pilot.press("escape")
        assert not (await opened(form.rig)).screen.plan.force


async def test_a_model_that_is_not_here_is_offered_for_download(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/quantize owner/name-7B")
        await shown(rig, PullScreen)
        assert rig.app.screen.query_one(Field).value == "owner/name-7B"
        await rig.pilot.press("escape")
        await rig.ask("/quantize no such model")
        await rig.until(lambda: any("no such model" in toast.message for toast in rig.app._notifications), "the words")
        assert rig.app.screen is rig.chat
        await rig.ask("/quantize /no/such-folder")
        await rig.until(lambda: any("/no/such-folder" in toast.message for toast in rig.app._notifications), "why")
        assert rig.app.screen is rig.chat


# The job


@pytest.mark.parametrize("size", SIZES)
async def test_a_job_is_watched_to_its_end_and_its_model_loaded(
    tmp_path: Path, monkeypatch: Patch, size: tuple[int, int]
) -> None:
    async with with_form(tmp_path, monkeypatch, size=size, script=held(tmp_path)) as form:
        form.rows.go_to(START)
        await form.examined()
        await form.rig.pilot.press("enter")
        view = await watched(form.rig)
        modules = view.screen.query_one(ModuleList)
        await view.rig.until(lambda: len(modules.ids) == 6, "half of the modules")
        assert "layer 2 of 4" in view.line("stage")
        assert view.line("worst") == "Largest error 6.00e-04 at layer 2 mlp.down_proj"
        assert "24 samples" in view.line("calibration")
        frame = view.screen.query_one(".dialog")
        assert view.rig.app.size.region.contains_region(frame.region)
        assert frame.region.contains_region(modules.region)
        assert modules.region.height >= 2
        await view.rig.pilot.press("l")
        log = view.screen.query_one(LogList)
        assert log.display
        assert not modules.display
        assert any("calibration is ready" in str(log.item(place)) for place in range(len(log.ids)))
        (tmp_path / "go").touch()
        await view.ended()
        assert view.job.state.ended == "done"
        assert "100%" in view.line("share")
        assert "Made" in view.ending
        assert "You said" in view.ending
        found = view.rig.app.desk.library
        await view.rig.until(lambda: any(BASE in m.name and m.quant.bits == 4 for m in found.models), "the new model")
        await view.rig.pilot.press("enter")
        await view.rig.until(lambda: found.loaded and found.loaded.path == str(view.job.preflight.output), "the load")


async def test_a_job_goes_on_behind_the_chat(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, script=held(tmp_path), size=(80, 24)) as form:
        view = await started(form)
        rig = view.rig
        await rig.until(lambda: view.job.state.layer == 2, "half of the layers")
        await rig.pilot.press("escape")
        await rig.until(lambda: f"quantizing {percent(view.job.state.share)} " in rig.line("status"), "the bar")
        assert "/quantize shows it" in rig.line("activity")
        await rig.ask("/quantize")
        assert (await watched(rig)).job is view.job
        await rig.pilot.press("escape")
        (tmp_path / "go").touch()
        await rig.until(lambda: view.job.state.ended, "the end")
        await rig.until(lambda: "quantizing" not in rig.line("status"), "the bar without it")
        await rig.until(lambda: any("is made" in toast.message for toast in rig.app._notifications), "the toast")
        await rig.ask("/quantize")
        assert "Made" in (await watched(rig)).ending
        await rig.pilot.press("e")
        await shown(rig, ChooseScreen)
        assert "Measure" in str(rig.app.screen.query_one(".dialog").border_title)
        await rig.pilot.press("escape")
        await opened(rig)


async def test_a_cancelled_job_leaves_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, script=held(tmp_path)) as form:
        view = await started(form)
        await view.rig.until(lambda: view.job.state.modules, "a module")
        await view.rig.pilot.press("x")
        await shown(view.rig, ConfirmScreen)
        await view.rig.pilot.press("escape")
        assert not view.job.state.ended
        await view.rig.pilot.press("x")
        await shown(view.rig, ConfirmScreen)
        await view.rig.pilot.press("y")
        await view.ended()
        assert view.job.state.ended == "cancelled"
        output = view.job.preflight.output
        assert not output.exists()
        assert not list(output.parent.glob(f".{output.name}*"))
        await view.rig.pilot.press("r")
        await shown(view.rig, QuantizeScreen)


async def test_a_job_that_fails_says_why(tmp_path: Path, monkeypatch: Patch) -> None:
    fail = {"code": "nan", "title": "Quantizing failed", "detail": "q_proj of layer 1 holds NaN", "remedy": "Mend it"}
    async with with_form(tmp_path, monkeypatch, script={"quantize": {"fail": fail}}) as form:
        view = await started(form)
        await view.ended()
        assert view.job.state.ended == "failed"
        assert view.ending == "Quantizing failed\nq_proj of layer 1 holds NaN\nMend it"
        assert "r begins again" in view.hint
        assert not view.job.preflight.output.exists()


async def test_a_job_begins_once_the_last_change_is_examined(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch) as form:
        await form.examined()
        form.rows.go_to("bits")
        await form.rig.pilot.press("right", "s")
        view = await watched(form.rig)
        assert view.job.preflight.plan.recipe.bits == 8


async def test_one_job_at_a_time(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, script=held(tmp_path)) as form:
        view = await started(form)
        await view.rig.pilot.press("escape")
        # With a name, too: there is no second form while one runs.
        await view.rig.ask(f"/quantize {BASE}")
        assert (await watched(view.rig)).job is view.job


async def test_quitting_asks_while_a_job_runs(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, script=held(tmp_path)) as form:
        view = await started(form)
        rig = view.rig
        await rig.until(lambda: view.job.state.modules, "a module")
        await rig.pilot.press("ctrl+q")
        await shown(rig, ConfirmScreen)
        await rig.pilot.press("ctrl+q", "enter", "escape")
        await rig.until(lambda: isinstance(rig.app.screen, JobScreen), "the job again")
        assert not rig.app.leaving
        await rig.pilot.press("ctrl+q")
        await shown(rig, ConfirmScreen)
        await rig.pilot.press("y")
        await rig.until(lambda: rig.app.leaving and view.job.state.ended, "the end")
        assert view.job.state.ended == "cancelled"
        assert not view.job.preflight.output.exists()


# The table


async def test_the_worst_come_first_where_that_is_asked_for(tmp_path: Path, monkeypatch: Patch) -> None:
    async with with_form(tmp_path, monkeypatch, script=held(tmp_path, layers=8)) as form:
        view = await started(form)
        modules = view.screen.query_one(ModuleList)
        await view.rig.until(lambda: len(modules.ids) == 12, "half of the modules")
        errors = [module.error or 0 for module in view.job.state.modules]
        assert modules.ids[0] == "11"
        await view.rig.pilot.press("S")
        assert [errors[int(place)] for place in modules.ids] == sorted(errors, reverse=True)
        assert "▲" in modules.render_line(0).text
        assert "▲" not in modules.render_line(5).text
