"""Engine processes in other interpreters: what they find on their path, and what they say when they cannot run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from quantchat import paths
from quantchat.domain import stacks
from quantchat.domain.backends import EngineSpec
from quantchat.engine import launch
from quantchat.engine.client import EngineClient, EngineExited
from quantchat.engine.protocol import Event
from quantchat.errors import EngineGone
from quantchat.services.engine import exit_report

LAUNCH = paths.PACKAGE / "engine" / "launch.py"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with nothing but the standard library."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


async def exit_of(python: str, log: Path) -> EngineExited:
    ends: asyncio.Queue[Event | EngineExited] = asyncio.Queue()
    client = EngineClient(ends.put_nowait, spec=EngineSpec(backend="retired", python=python), log_path=log)
    await client.start()
    async with asyncio.timeout(30):
        event = await ends.get()
    await client.close()
    assert isinstance(event, EngineExited)
    return event


async def test_what_an_interpreter_lacks_is_said_with_the_command(bare: str, tmp_path: Path) -> None:
    event = await exit_of(bare, tmp_path / "engine.log")
    assert event.code == stacks.UNFIT_STATUS
    report = exit_report(event)
    assert report.code == "interpreter"
    assert f"{bare} -m pip install msgspec psutil platformdirs" in report.detail
    assert "doctor" in report.remedy


async def test_the_packages_of_this_interpreter_are_not_on_its_path(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    monkeypatch.setenv("PYTHONPATH", str(Path(msgspec.__file__).parents[1]))
    assert "msgspec" in (await exit_of(bare, tmp_path / "engine.log")).log_tail


@pytest.mark.parametrize("python", ["/nowhere/python", "/"])
async def test_what_is_no_program_is_said_before_anything_starts(python: str, tmp_path: Path) -> None:
    with pytest.raises(EngineGone) as caught:
        await exit_of(python, tmp_path / "engine.log")
    assert "[engine]" in caught.value.report.remedy


def test_an_older_python_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.unfit() == ""
    monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))
    assert "3.11 or newer" in launch.unfit()


def test_modules_beside_the_launcher_do_not_hide_the_librarys() -> None:
    """`quantchat/engine` has modules such as `threads` and `memory`, whose names other packages use too."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(LAUNCH.parent)!r}); runpy.run_path({str(LAUNCH)!r}); import memory"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "No module named 'memory'" in run.stderr


def test_a_whole_interpreter_starts_the_engine(tmp_path: Path) -> None:
    """The libraries are imported late; the process itself needs none."""
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(LAUNCH)!r}, run_name='__main__')\n"
        "except SystemExit: pass\nprint('torch' in sys.modules, 'quantchat.engine.worker' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.splitlines()[-1] == "False True", run.stderr
