"""Fixtures that several kinds of tests need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from disks import mounted

# The same cases in every run there: a new find belongs to a developer's run, not to somebody else's change.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


MAKING = pytest.StashKey[subprocess.Popen[bytes]]()
ORDER = ("unit", "ui", "engine", "doctor", "screen", "gpu", "retired")
"""What needs no model comes first, while the demo's is being made."""


def pytest_configure() -> None:
    """Hear signals that a shell in the background or `nohup` left out: programs that tests start would, too."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that drive the real program over the run: only one of them runs at a time."""
    folders = {item.path: item.path.relative_to(Path(__file__).parent).parts[0] for item in items}
    real = [path for path, folder in folders.items() if folder == "e2e"]
    others = sorted((path for path in folders if path not in real), key=lambda path: ORDER.index(folders[path]))
    places: dict[Path, float] = {path: place for place, path in enumerate(others)}
    places |= {path: (place + 1) * len(others) / (len(real) + 1) - 0.5 for place, path in enumerate(real)}
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to make the demo's model if there will be a need for it; the fixture waits for it."""
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if first and any(item.get_closest_marker("e2e") for item in session.items):
        command = [sys.executable, str(Path(__file__).with_name("demo_model.py"))]
        session.config.stash[MAKING] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pytest_sessionfinish(session: pytest.Session) -> None:
    making = session.config.stash.get(MAKING, None)
    if making is not None:
        making.terminate()
        making.wait()


@pytest.fixture(scope="session", autouse=True)
def _scratch_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """GPTQModel writes `logs/` into the current folder, late and from a thread; not into the checkout."""
    os.chdir(tmp_path_factory.mktemp("current"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    with mounted(tmp_path / "disk", "size=64k"):
        yield tmp_path / "disk"


def fill(folder: Path) -> Path:
    """Use up a small file system to the last byte."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass
    return ballast


@pytest.fixture
def fill_disk() -> Callable[[Path], Path]:
    return fill
