"""The commands of the findings are run as they are printed, and mend what was found, in environments of all kinds."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from doctor.rig import Seen, doctor, make_system, make_venv, make_wheel, only, path_without, site_of

PACKAGE, VERSION = "safetensors", "99.0"
MISSING = f"{PACKAGE}*"


@pytest.fixture
def offline(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Where pip installs from a folder of ours alone."""
    wheels = make_wheel(tmp_path / "wheels", PACKAGE, VERSION).parent
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "/dev/null", "UV_OFFLINE": "1"}
    return env | own


def run(command: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-ec", command], env=env, capture_output=True, text=True, timeout=120, check=False)


def mended(env: dict[str, str], python: Path) -> str:
    """Run the command for the missing package, and look again; return the command."""
    seen = doctor(*only("packages"), env=env, python=python)
    assert seen[f"package.{PACKAGE}"].found == "Not installed."
    fix = seen[f"package.{PACKAGE}"].fix
    done = run(fix, env)
    assert done.returncode == 0, done.stderr
    again: Seen = doctor(*only("packages"), env=env, python=python)
    assert again[f"package.{PACKAGE}"].found.startswith(VERSION)
    assert again[f"package.{PACKAGE}"].level == "green"
    return fix


def test_in_a_virtual_environment(offline: dict[str, str], tmp_path: Path) -> None:
    python = make_venv(tmp_path / "my $venv's", MISSING)
    assert mended(offline, python) == f"{shlex.quote(str(python))} -m pip install {PACKAGE}"
    assert (site_of(python) / PACKAGE).is_dir()


def test_in_a_virtual_environment_without_pip(offline: dict[str, str], tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv", MISSING, "pip", "pip-*")
    env = offline | {"PATH": str(path_without(tmp_path / "bin", "uv", "uvx"))}
    assert "ensurepip" in mended(env, python)


def test_in_an_interpreter_of_the_system(offline: dict[str, str], tmp_path: Path) -> None:
    python, own = make_system(tmp_path / "usr", MISSING)
    env = offline | own
    refused = run(f"{python} -m pip install {PACKAGE}", env)
    assert "externally-managed-environment" in refused.stderr, "this environment is what the test takes it for"
    assert "--break-system-packages" in mended(env, python)


def test_a_package_of_a_model_is_installed_for_this_interpreter(offline: dict[str, str], tmp_path: Path) -> None:
    model = Path(__file__).parents[1] / "data" / "models" / "ct-llama3.1-8b-w4a16"
    python = make_venv(tmp_path / "venv", "compressed_tensors*")
    make_wheel(tmp_path / "wheels", "compressed_tensors", VERSION)
    arguments = [*only("models"), str(model)]
    seen = doctor(*arguments, env=offline, python=python)
    (finding,) = [finding for finding in seen.findings if finding.id == "model.package-missing"]
    assert finding.fix.startswith(f"{python} -m pip install ")
    assert run(finding.fix, offline).returncode == 0
    assert "model.package-missing" not in doctor(*arguments, env=offline, python=python)
