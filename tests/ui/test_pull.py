"""The dialog of downloads over a real hub on loopback: looking up, choosing, watching, stopping, going on behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Static

from hub_server import Fault, HubServer, Repository, hub_env, serving
from pull_rig import NAME, WEIGHTS, gptq_repository
from quantchat.services.pull.jobs import Job
from quantchat.ui.screens.chat import ChatScreen
from quantchat.ui.screens.pull import PullScreen
from quantchat.ui.widgets.field import Field
from quantchat.ui.widgets.line import Line
from quantchat.ui.widgets.rows import RowList
from ui.rig import SIZES, Rig, running

Patch = pytest.MonkeyPatch
HALF = 500_000


@pytest.fixture
def hub(monkeypatch: Patch, tmp_path: Path) -> Iterator[HubServer]:
    with serving({NAME: gptq_repository(), "evil/[/x]\x1b[2J": Repository({"config.json": b"{}"})}) as hub:
        for name, value in hub_env(hub, str(tmp_path / "hf")).items():
            monkeypatch.setenv(name, value)
        yield hub


class Dialog:
    """The dialog as a person sees it."""

    def __init__(self, rig: Rig, screen: PullScreen) -> None:
        self.rig, self.screen = rig, screen

    @property
    def rows(self) -> RowList:
        return self.screen.query_one(RowList)

    @property
    def words(self) -> str:
        return str(self.screen.query_one("#pull-words Static", Static).content)

    @property
    def progress(self) -> str:
        return self.screen.query_one("#pull-progress", Line).plain

    @property
    def job(self) -> Job:
        assert self.screen._job is not None
        return self.screen._job

    def marks(self) -> dict[str, str]:
        return {row.id: row.mark for row in self.rows._rows}

    async def says(self, words: str) -> None:
        await self.rig.until(lambda: words in self.words, f"{words!r} in {self.words!r}")

    async def look_up(self, text: str) -> None:
        field = self.screen.query_one(Field)
        field.value = text
        self.screen.set_focus(field)
        await self.rig.pilot.press("enter")

    async def shows_files(self) -> None:
        await self.rig.until(lambda: WEIGHTS in self.marks(), f"the files; {self.words!r}")


def partial_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("hub/models--*/blobs/*.incomplete")]


async def opened(rig: Rig, name: str = "") -> Dialog:
    await rig.ask(f"/pull {name}".strip())
    await rig.until(lambda: isinstance(rig.app.screen, PullScreen) and rig.app.screen.query(RowList), "the dialog")
    assert isinstance(rig.app.screen, PullScreen)
    return Dialog(rig, rig.app.screen)


@asynccontextmanager
async def with_dialog(folder: Path, patch: Patch, name: str = NAME, **how: object) -> AsyncIterator[Dialog]:
    async with running(folder, patch, **how) as rig:  # type: ignore[arg-type]
        yield await opened(rig, name)


@pytest.mark.parametrize("size", SIZES)
async def test_a_model_is_looked_up_and_downloaded(
    tmp_path: Path, monkeypatch: Patch, hub: HubServer, size: tuple[int, int]
) -> None:
    async with with_dialog(tmp_path, monkeypatch, size=size) as dialog:
        rig = dialog.rig
        await dialog.shows_files()
        assert dialog.marks() == {
            ".gitattributes": " ",
            "README.md": "●",
            "config.json": "●",
            WEIGHTS: "●",
            "picture.png": " ",
            "pytorch_model.bin": " ",
            "tiny.Q4_K_M.gguf": " ",
            "tokenizer.json": "●",
            "tokenizer_config.json": "●",
        }
        assert "GPTQ 4b g128" in dialog.words
        assert "into the memory that is free now" in dialog.words
        assert "free on the disk" in dialog.words
        frame = dialog.screen.query_one(".dialog")
        assert rig.app.size.region.contains_region(frame.region)
        for part in (dialog.rows, dialog.screen.query_one("#pull-words"), dialog.screen.query_one("#pull-progress")):
            assert frame.region.contains_region(part.region)
        assert dialog.rows.region.height >= 3
        await rig.pilot.press("p")
        await rig.until(lambda: dialog.job.state == "done", "the end of the download")
        assert set(dialog.marks().values()) == {"✓"}
        assert "Here, and checked" in dialog.progress
        await rig.pilot.press("escape")
        await rig.until(lambda: any(model.name == NAME for model in rig.app.desk.library.models), "the new model")
        assert any("is downloaded" in str(notice.message) for notice in rig.app._notifications)


async def test_words_are_searched_for(tmp_path: Path, monkeypatch: Patch, hub: HubServer) -> None:
    async with with_dialog(tmp_path, monkeypatch, "") as dialog:
        await dialog.look_up("e")
        await dialog.says("found, most downloaded first")
        assert not any("\x1b" in row.name for row in dialog.rows._rows)
        assert dialog.rows.highlighted_id == NAME
        await dialog.rig.pilot.press("enter")
        await dialog.shows_files()
        assert dialog.screen.query_one(Field).value == NAME
        await dialog.rig.pilot.press("slash")
        await dialog.look_up("nothing-like-it")
        await dialog.says("Nothing was found")


async def test_files_are_taken_and_left(tmp_path: Path, monkeypatch: Patch, hub: HubServer) -> None:
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        await dialog.shows_files()
        whole = dialog.words
        dialog.rows.go_to(WEIGHTS)
        await dialog.rig.pilot.press("space")
        assert dialog.marks()[WEIGHTS] == " "
        await dialog.says("take the one you want")
        dialog.rows.go_to("README.md")
        await dialog.rig.pilot.press("enter")
        assert dialog.marks()["README.md"] == " "
        dialog.rows.go_to(WEIGHTS)
        await dialog.rig.pilot.press("space")
        await dialog.rig.until(lambda: "GPTQ 4b g128" in dialog.words and "weights" in dialog.words, "the fit again")
        assert dialog.words != whole
        await dialog.rig.pilot.press("p")
        await dialog.rig.until(lambda: dialog.job.state == "done", "the end of the download")
        assert "README.md" not in dialog.marks()
        assert not (Path(dialog.job.folder) / "README.md").exists()


async def test_a_download_goes_on_behind_the_chat_and_can_be_stopped(
    tmp_path: Path, monkeypatch: Patch, hub: HubServer
) -> None:
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        rig = dialog.rig
        await dialog.shows_files()
        stall = hub.fault(WEIGHTS, Fault(stall_after=HALF))
        await rig.pilot.press("p")
        await rig.until(stall.reached.is_set, "half of the weights")
        job = dialog.job
        await rig.pilot.press("escape")
        await rig.until(lambda: isinstance(rig.app.screen, ChatScreen), "the chat")
        await rig.until(lambda: f"Downloading {NAME}" in rig.line("activity"), "the download below the chat")
        await rig.load()
        await rig.ask("hello")
        await rig.answered()
        assert job.state == "running"
        again = await opened(rig)
        assert again.job is job
        await rig.until(lambda: "%" in again.progress, "the progress")
        await rig.pilot.press("x")
        await rig.until(lambda: job.state == "cancelled", "the end of the download")
        await rig.until(lambda: "What has arrived is kept" in again.progress, "words about it")
        assert partial_sizes(tmp_path) == [HALF]
        before = hub.sent(WEIGHTS)
        await again.look_up(NAME)
        await rig.until(lambda: "to come" in again.words, "what is left")
        await rig.pilot.press("p")
        await rig.until(lambda: again.job.state == "done", "the end of the second download")
        assert hub.sent(WEIGHTS) - before - 100_000 == len(hub.repositories[NAME].files[WEIGHTS]) - HALF


async def test_leaving_ends_the_download(tmp_path: Path, monkeypatch: Patch, hub: HubServer) -> None:
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        await dialog.shows_files()
        stall = hub.fault(WEIGHTS, Fault(stall_after=HALF))
        await dialog.rig.pilot.press("p")
        await dialog.rig.until(stall.reached.is_set, "half of the weights")
        job = dialog.job
        await dialog.rig.app.action_quit()
        assert job.state == "cancelled"


@pytest.mark.parametrize("size", SIZES)
async def test_what_goes_wrong_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: Patch, hub: HubServer, size: tuple[int, int]
) -> None:
    async with with_dialog(tmp_path, monkeypatch, "acme/none", size=size) as dialog:
        await dialog.says("was not found")
        await dialog.look_up("../x")
        await dialog.says("no name of a repository")
        await dialog.look_up(f"{NAME}@v9")
        await dialog.says("no revision v9")
        hub.repositories[NAME].gated = True
        await dialog.look_up(NAME)
        await dialog.says(f"Open {hub.url}/{NAME}")
        hub.repositories[NAME].gated = False
        await dialog.look_up(NAME)
        await dialog.shows_files()
        hub.fault(WEIGHTS, Fault(corrupt_at=1), Fault(corrupt_at=1))
        await dialog.rig.pilot.press("p")
        await dialog.rig.until(lambda: dialog.job.state == "failed", "the failure")
        await dialog.says(f"{WEIGHTS} arrives corrupt")
        assert dialog.marks()[WEIGHTS] == "!"


async def test_another_name_can_be_written_while_a_download_moves_on(
    tmp_path: Path, monkeypatch: Patch, hub: HubServer
) -> None:
    other = "acme/other-GPTQ"
    hub.repositories[other] = gptq_repository(seed=2)
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        rig = dialog.rig
        await dialog.shows_files()
        slow = hub.fault(WEIGHTS, Fault(bytes_per_second=200_000))
        await rig.pilot.press("p")
        await rig.until(lambda: dialog.job.progress.done, "the first bytes")
        first, before = dialog.job, dialog.job.progress.done
        await rig.pilot.press("slash")
        field = dialog.screen.query_one(Field)
        await rig.until(lambda: first.progress.done > before and not slow.reached.is_set(), "more bytes")
        assert dialog.screen.focused is field
        field.value = ""
        await rig.pilot.press(*(key if key != "/" else "slash" for key in "acme/x"))
        assert field.value == "acme/x", "x stops nothing"
        await dialog.look_up(other)
        await dialog.says(f"{other}: 5 files")
        await rig.pilot.press("p")
        await rig.until(lambda: dialog.screen._job not in (None, first), "the second download")
        second = dialog.job
        assert f"{other} (and 1 more)" in rig.app.desk.pull_line()
        await rig.until(lambda: {first.state, second.state} == {"done"}, "both ends")
        assert not rig.app.desk.pull_line()


async def test_a_download_that_was_stopped_goes_on_by_one_key(
    tmp_path: Path, monkeypatch: Patch, hub: HubServer
) -> None:
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        rig, frame = dialog.rig, dialog.screen.query_one(".dialog")
        await dialog.shows_files()
        stall = hub.fault(WEIGHTS, Fault(stall_after=HALF))
        await rig.pilot.press("p")
        await rig.until(stall.reached.is_set, "half of the weights")
        await rig.until(lambda: partial_sizes(tmp_path) == [HALF], "them on the disk")
        assert "x stops" in str(frame.border_subtitle)
        await rig.pilot.press("x")
        await rig.until(lambda: dialog.job.state == "cancelled", "the end of the download")
        assert "p goes on" in str(frame.border_subtitle)
        before = hub.sent(WEIGHTS)
        await rig.pilot.press("p")
        await rig.until(lambda: dialog.job.state == "done", "the end of the second download")
        assert hub.sent(WEIGHTS) - before == len(hub.repositories[NAME].files[WEIGHTS]) - HALF


async def test_of_very_many_files_those_under_way_are_shown(tmp_path: Path, monkeypatch: Patch, hub: HubServer) -> None:
    hub.repositories[NAME].files |= {f"data/{number:03}.txt": b"x" for number in range(400)}
    async with with_dialog(tmp_path, monkeypatch) as dialog:
        await dialog.shows_files()
        stall = hub.fault(WEIGHTS, Fault(stall_after=HALF))
        await dialog.rig.pilot.press("p")
        await dialog.rig.until(lambda: dialog.job.progress.files_done == 404, "all other files")
        await dialog.rig.until(lambda: dialog.marks().get(WEIGHTS) == "↓", "the file under way")
        assert len(dialog.marks()) <= 200
        stall.released.set()
        await dialog.rig.until(lambda: dialog.job.state == "done", "the end of the download")
