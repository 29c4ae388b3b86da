"""The wheel, built through the sdist, holds what the program needs and starts from an empty place."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from quantchat import __version__

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(CHECKOUT), cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = CHECKOUT / "tui"
    wanted = {
        str(path.relative_to(package))
        for path in (package / "quantchat").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"quantchat/themes/{path.name}" for path in (CHECKOUT / "themes").glob("*.toml")}
    assert wanted - inside == set()
    assert any(name.endswith(".tcss") for name in inside)
    assert any(name.startswith("quantchat/themes/") for name in inside)
    assert any(name.endswith("LICENSE") for name in inside)
    assert not any(name.startswith(("tests", "tui")) for name in inside)


def test_the_sdist_holds_the_tests_and_themes(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"themes/quantchat-dark.toml", "tests/unit/test_packaging.py", "README.md", "CHANGELOG.md"} <= names


def test_the_installed_wheel_runs_and_finds_its_themes(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel), cwd=tmp_path)
    script = str(target / "bin" / "quantchat")
    version = run(sys.executable, script, "--version", cwd=tmp_path, PYTHONPATH=str(target))
    assert version.split()[-1] == __version__
    probe = "import quantchat.paths as p; print(p.__file__); print(*p.shipped_themes_dir().glob('*.toml'))"
    where, themes = run(sys.executable, "-c", probe, cwd=tmp_path, PYTHONPATH=str(target)).splitlines()
    assert where.startswith(str(target))
    assert "quantchat-dark.toml" in themes
