"""The doctor in the screen: findings one by one, wrapped to the width, copied whole, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from textual.widgets import Static

from quantchat.services.doctor.checks import CHECKS, Check
from quantchat.services.doctor.findings import Finding, Level
from quantchat.services.doctor.machine import Machine
from quantchat.services.loads import LoadOptions
from quantchat.ui import clipboard
from quantchat.ui.screens.dialogs import Frame
from quantchat.ui.screens.doctor import DoctorScreen
from ui.rig import SIZES, Rig, running

QUICK = tuple(check for check in CHECKS if check.id in {"python", "compilers", "disks", "environment", "terminal"})
EVIL = Finding(id="evil", title="\x1b]0;t\x07[red]", level="red", found="[/nothing] " * 30, fix="rm -r [b]\x1b[0m")


def body(rig: Rig) -> str:
    return str(rig.app.screen.query_one(".body", Static).content)


async def opened(rig: Rig, checks: tuple[Check, ...]) -> DoctorScreen:
    screen = DoctorScreen(Machine, checks)
    rig.app.push_screen(screen)
    await rig.until(lambda: rig.app.screen is screen and screen.query(Static), "the dialog")
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_the_real_checks_fill_the_dialog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(clipboard, "send", lambda _app, text, _what: copied.append(text))
    monkeypatch.setenv("GPTQMODEL_KERNEL_REBUILD", "1")
    async with running(tmp_path, monkeypatch, size=size) as rig:
        screen = await opened(rig, QUICK)
        await rig.until(lambda: "Looking at" not in body(rig), "all findings")
        words = " ".join(body(rig).split())
        assert "✓ Python" in words
        assert "! Environment" in words
        assert "unset GPTQMODEL_KERNEL_REBUILD" in words
        assert words.endswith("green")
        frame = screen.query_one(Frame)
        assert rig.app.screen.region.contains_region(frame.region)
        await rig.pilot.press("c")
        assert "    unset GPTQMODEL_KERNEL_REBUILD\n" in copied[0]
        monkeypatch.delenv("GPTQMODEL_KERNEL_REBUILD")
        await rig.pilot.press("r")
        await rig.until(lambda: "REBUILD" not in body(rig) and "Looking at" not in body(rig), "a second look")
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat, "the chat")


async def test_findings_appear_one_by_one_in_the_order_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def waits(machine: Machine) -> Iterator[Finding]:
        go_on.wait(20)
        yield Finding(id="first", title="First")

    def evil(machine: Machine) -> Iterator[Finding]:
        yield EVIL

    async with running(tmp_path, monkeypatch) as rig:
        await opened(rig, (Check("first", "first thing", waits), Check("evil", "evil", evil)))
        await rig.until(lambda: "[red]" in body(rig), "the second check")
        assert body(rig).endswith("Looking at first thing …")
        assert not set(body(rig)) & set("\x1b\x07")
        go_on.set()
        await rig.until(lambda: "✓ First" in body(rig), "the first check")
        assert body(rig).index("First") < body(rig).index("[red]")
        assert body(rig).endswith("1 red, 1 green")
        await rig.pilot.resize_terminal(60, 20)
        frame = rig.app.screen.query_one(Frame)
        await rig.until(
            lambda: max(map(len, body(rig).splitlines())) <= frame.scrollable_content_region.width < 60,
            "narrower lines",
        )


@pytest.mark.engine
async def test_closing_ends_the_process_that_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def probes() -> list[psutil.Process]:
        return [p for p in psutil.Process().children(recursive=True) if "quantchat.engine.probe" in words(p)]

    async with running(tmp_path, monkeypatch) as rig:
        await rig.ask("/doctor alpha")
        await rig.until(lambda: isinstance(rig.app.screen, DoctorScreen), "the dialog")
        await rig.until(probes, "the process that imports")
        await rig.until(lambda: "✓ Python" in body(rig), "the first findings")
        await rig.pilot.press("escape")
        await rig.until(lambda: rig.app.screen is rig.chat, "the chat")
        await rig.until(lambda: not probes(), "its end")


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_the_screen_judges_by_the_wishes_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with running(tmp_path, monkeypatch, config='kernel = "marlin"\nmodels_dirs = ["~/mine"]') as rig:
        rig.app.desk.library._options = LoadOptions(kernel="torch_aten", device="cpu")
        rig.chat.action_doctor()
        await rig.until(lambda: isinstance(rig.app.screen, DoctorScreen), "the dialog")
        screen = rig.app.screen
        assert isinstance(screen, DoctorScreen)
        machine = screen._machine()
        assert (machine.kernel, machine.device) == ("torch_aten", "cpu")
        assert list(machine.models_dirs) == [tmp_path / "models", tmp_path / "mine"]


async def test_n_goes_from_fault_to_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def findings(_: Machine) -> Iterator[Finding]:
        for number in range(60):
            level: Level = "yellow" if number in (20, 35) else "green"
            yield Finding(id="x", title=f"Number {number}", level=level, found="words " * 30)

    async with running(tmp_path, monkeypatch, size=(80, 24)) as rig:
        screen = await opened(rig, (Check("x", "X", findings),))
        frame = screen.query_one(Frame)
        await rig.until(lambda: "2 yellow, 58 green" in str(frame.border_title), "the summary in the upper edge")
        tops = []
        for _ in range(3):
            await rig.pilot.press("n")
            await rig.until(lambda: frame.scroll_y > 0)
            await rig.pilot.pause()
            tops.append(frame.scroll_y)
        lines = body(rig).split("\n")
        above = screen.query_one(".body", Static).virtual_region.y
        assert [lines[int(top) - above].split("  ")[0] for top in tops] == ["! Number 20", "! Number 35", "! Number 20"]
