"""`quantchat doctor` in environments that are really altered: virtual environments, search paths, drivers, disks."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from quantchat.services.doctor.findings import Finding, Report

SITE = Path(sysconfig.get_path("purelib"))
RUN = "from quantchat.cli import main; main()"
COMPILERS = ("g++*", "gcc*", "cc", "c++*", "c89*", "c99*", "clang*", "*-gcc*", "*-g++*", "ninja*", "nvcc*")
MISLEADING = (
    "HF_",
    "GPTQMODEL_",
    "CUDA_",
    "TORCH",
    "TRANSFORMERS_",
    "PYTHONPATH",
    "LD_",
    "TMUX",
    "STY",
    "SSH_",
    "XDG_",
    "NVML",
    "NO_COLOR",
    "COLUMNS",
    "LINES",
)
STUB = Path(__file__).parents[1] / "unit" / "hardware" / "stub_nvml.c"


class Seen:
    """What one run found, and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == "", done.stderr
        self.status = done.returncode
        self.findings = msgspec.json.decode(done.stdout, type=Report).findings

    def __getitem__(self, identifier: str) -> Finding:
        (found,) = [finding for finding in self.findings if finding.id == identifier]
        return found

    def __contains__(self, identifier: str) -> bool:
        return any(finding.id == identifier for finding in self.findings)

    def about(self, title: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.title == title]


def clean_env(home: Path, **more: str) -> dict[str, str]:
    """This environment without what would mislead libraries or the doctor, for a fresh user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(MISLEADING)}
    own = {"LANG": "C.UTF-8", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    return kept | own | {"QUANTCHAT_HOME": str(home), "HOME": str(home)} | more


def doctor(
    *arguments: str, env: Mapping[str, str], python: Path | str = sys.executable, prefix: Sequence[str] = ()
) -> Seen:
    """Run `quantchat doctor --json`; `prefix` is a command that runs it."""
    command = [*prefix, str(python), "-P", "-c", RUN, "doctor", "--json", *arguments]
    done = subprocess.run(
        command, env=dict(env), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    return Seen(done)


def only(*checks: str) -> list[str]:
    return [word for check in checks for word in ("--only", check)]


def make_venv(folder: Path, *without: str) -> Path:
    """A virtual environment with links to all packages of this one but some; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    link_packages(site, *without)
    return folder / "bin" / "python"


def site_of(python: Path) -> Path:
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    return site


def dist_info(site: Path, name: str, version: str, *requires: str) -> None:
    """The metadata of an installed package, as pip writes it."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n\n")
    (folder / "RECORD").write_text("")


def path_without(folder: Path, *patterns: str) -> Path:
    """A folder with a link to every program on PATH but some."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if os.path.isdir(place) else ():
            link = folder / program.name
            if not link.is_symlink() and not any(fnmatch.fnmatch(program.name, pattern) for pattern in patterns):
                link.symlink_to(program)
    return folder


def compile_driver(folder: Path) -> Path:
    """The NVML stub of the hardware tests, as the driver library of its folder."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "the README asks for gcc"
    folder.mkdir(exist_ok=True)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", STUB], check=True)
    return folder


def make_system(folder: Path, *without: str) -> tuple[Path, dict[str, str]]:
    """An interpreter whose packages are a distribution's own (PEP 668); return it and what its environment needs.

    Links to this one's standard library, with the mark of a managed environment and with links to our packages.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = folder / "lib" / version
    site = stdlib / "site-packages"
    site.mkdir(parents=True)
    for item in Path(sysconfig.get_path("stdlib")).iterdir():
        if item.name != "site-packages":
            (stdlib / item.name).symlink_to(item)
    link_packages(site, *without)
    (stdlib / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=use the distribution's packages\n")
    (folder / "bin").mkdir()
    python = folder / "bin" / version
    python.symlink_to(Path(sys.base_prefix) / "bin" / version)
    return python, {"PYTHONHOME": str(folder)}


def link_packages(site: Path, *without: str) -> None:
    """Link to all packages of this environment but some."""
    for item in SITE.iterdir():
        if not any(fnmatch.fnmatch(item.name.lower(), pattern) for pattern in without):
            (site / item.name).symlink_to(item)


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A package that pip can install from a folder, without any registry."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel
