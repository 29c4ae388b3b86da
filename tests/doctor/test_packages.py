"""Installed packages, in virtual environments in which one is missing, too old, retired, broken or crashes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from doctor.rig import Seen, dist_info, doctor, make_venv, only, site_of

Venv = Callable[..., Path]


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    return lambda *without: make_venv(tmp_path / "venv", *without)


def requirements(fix: str, python: Path) -> list[Requirement]:
    """The packages that a command installs into the environment that was looked at."""
    words = shlex.split(fix)
    assert words[:4] == [str(python), "-m", "pip", "install"]
    return [Requirement(word) for word in words[4:] if not word.startswith("--")]


def test_this_environment_is_sound(env: dict[str, str]) -> None:
    seen = doctor(*only("python", "packages"), env=env)
    assert seen.status == 0
    assert {finding.level for finding in seen.findings} == {"green"}
    assert seen["python"].found.endswith(f"({sys.executable})")
    assert "torch >=2" in seen["package.gptqmodel"].found
    assert "gptqmodel >=7.0.0" in seen["package.optimum"].found, "optimum names this limit in its code alone"


@pytest.mark.engine
def test_without_gptqmodel(env: dict[str, str], venv: Venv) -> None:
    python = venv("gptqmodel*")
    seen = doctor(*only("packages", "imports"), env=env, python=python)
    assert seen.status == 1
    assert seen["package.gptqmodel"].level == "red"
    (wanted,) = requirements(seen["package.gptqmodel"].fix, python)
    assert (wanted.name, str(wanted.specifier)) == ("gptqmodel", ">=7.7")
    assert "gptqmodel >=7.7 (not installed)" in seen["package.quantchat"].found
    assert seen["package.torch"].level == "green"
    assert "import.gptqmodel" not in seen, "the package has told it, with the command"
    assert "import" not in seen
    pip = subprocess.run([*shlex.split(seen["package.gptqmodel"].fix)[:3], "--version"], capture_output=True, text=True)
    assert str(python.parents[1]) in pip.stdout


def test_versions_that_do_not_go_together(env: dict[str, str], venv: Venv) -> None:
    python = venv("torch-*.dist-info", "gguf-*.dist-info")
    dist_info(site_of(python), "torch", "2.10.0+cpu")
    dist_info(site_of(python), "gguf", "0.9.1")
    seen = doctor(*only("packages"), env=env, python=python)
    assert seen.status == 1
    assert seen["package.gptqmodel"].level == "red"
    assert "torch >=2.14.1 (2.10.0+cpu is here)" in seen["package.gptqmodel"].found
    (wanted,) = requirements(seen["package.gptqmodel"].fix, python)
    assert str(wanted) == "torch>=2.14.1"
    assert seen["package.accelerate"].level == "green"
    assert {r.name for r in requirements(seen["package.quantchat"].fix, python)} == {"torch", "gguf"}
    assert seen["package.transformers"].level == "yellow", "it reads GGUF files with that, and nothing else"


def test_markers_and_extras_are_understood(env: dict[str, str], venv: Venv) -> None:
    python = venv("optimum-*.dist-info")
    lines = ('nothing>=1; python_version < "3"', "other>=1; extra == 'more'", "not a requirement !", "absent-thing>=1")
    dist_info(site_of(python), "optimum", "2.3.0", *lines)
    found = doctor(*only("packages"), env=env, python=python)["package.optimum"]
    assert found.level == "red"
    assert "absent-thing >=1 (not installed)" in found.found
    assert "nothing" not in found.found
    assert "other" not in found.found


@pytest.mark.parametrize("name", ["auto-gptq", "autoawq", "pynvml"])
def test_retired_packages(env: dict[str, str], venv: Venv, name: str) -> None:
    python = venv()
    dist_info(site_of(python), name, "0.7.1")
    seen = doctor(*only("packages"), env=env, python=python)
    assert seen.status == 0
    assert seen[f"package.{name}"].level == "yellow"
    assert seen[f"package.{name}"].fix == f"{python} -m pip uninstall {name}"


def broken_torch(env: dict[str, str], python: Path, code: str) -> Seen:
    package = site_of(python) / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    return doctor(*only("imports", "torch", "nvcc", "models"), env=env, python=python)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def half(", "SyntaxError"),
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13: cannot open"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import ctypes; print('{\"end\": true}', flush=True); ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os._exit(7)", "ended with status 7"),
        ("import os, sys; print('said at last', file=sys.stderr); sys.stderr.flush(); os.abort()", "said at last"),
    ],
)
def test_an_import_that_fails_or_crashes(env: dict[str, str], venv: Venv, code: str, words: str) -> None:
    python = venv("torch")
    seen = broken_torch(env, python, code)
    assert seen.status == 1
    assert seen["import.torch"].level == "red"
    assert words in seen["import.torch"].found
    (wanted,) = requirements(seen["import.torch"].fix, python)
    assert wanted.name == "torch"
    assert not any(finding.id.endswith("unfinished") for finding in seen.findings), "the other checks go on"
