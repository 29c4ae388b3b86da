"""What a child process found out by importing the libraries; its death is a finding too."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from quantchat.domain.kernels import Host
from quantchat.services.doctor.nvml import ended

PROBE_SECONDS = 120.0
"""The imports take seconds from a warm disk, and a minute from a cold or a network one."""
TAIL = 400


class Trial(msgspec.Struct, frozen=True, array_like=True):
    """A GPU as torch sees it; `error` is what it said to a small sum."""

    name: str
    capability: tuple[int, int]
    error: str = ""


class Torch(msgspec.Struct, frozen=True, kw_only=True):
    """The PyTorch that was imported.

    Attributes:
        cuda: Version of CUDA that it was built with; None for a build without.
        hip: The same of AMD's ROCm.
        archs: What it holds machine code (`sm_90`) and portable code (`compute_90`) for.
    """

    version: str
    cuda: str | None = None
    hip: str | None = None
    archs: tuple[str, ...] = ()


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """What torch said of the GPUs.

    Attributes:
        available: It can reach one.
        said: Why not, in its own words.
    """

    available: bool = False
    said: str = ""
    devices: tuple[Trial, ...] = ()


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the child said before it ended.

    Attributes:
        versions: Of the libraries that could be imported.
        errors: What the others said, by name.
        gpus: None if torch did not get so far.
        host: What the kernels ask of this machine.
        builds: Where the build of each kernel's extension lies that this installation would use.
        failed: The step in which the child died or was too slow; empty if it came to its end.
        said: How it ended.
    """

    torch: Torch | None = None
    gpus: Gpus | None = None
    versions: dict[str, str] = {}
    errors: dict[str, str] = {}
    host: Host | None = None
    builds: dict[str, str] = {}
    failed: str = ""
    said: str = ""


class _Line(msgspec.Struct, frozen=True):
    """One line of the child: a step that begins, or what it found."""

    step: str = ""
    torch: Torch | None = None
    gpus: Gpus | None = None
    version: dict[str, str] = {}
    error: dict[str, str] = {}
    host: Host | None = None
    builds: dict[str, str] = {}
    end: bool = False


def command(device: str | None) -> Sequence[str]:
    """Return the command line of the child; `-P` keeps the current folder out of the imports, as in the engine."""
    return (sys.executable, "-P", "-m", "quantchat.engine.probe", *([device] if device else []))


def read_probe(status: int | None, out: str, err: str) -> Probe:
    """Put together what the child said line by line, up to where it came."""
    lines = [line for line in map(_read, out.splitlines()) if line is not None]
    ended = any(line.end for line in lines)
    return Probe(
        torch=next((line.torch for line in lines if line.torch), None),
        gpus=next((line.gpus for line in lines if line.gpus), None),
        versions={name: version for line in lines for name, version in line.version.items()},
        errors={name: error for line in lines for name, error in line.error.items()},
        host=next((line.host for line in lines if line.host), None),
        builds={name: root for line in lines for name, root in line.builds.items()},
        failed="" if ended else next((line.step for line in reversed(lines) if line.step), "start"),
        said="" if ended else _how_it_ended(status, err),
    )


def _read(line: str) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError:
        return None


def _how_it_ended(status: int | None, err: str) -> str:
    if status is None:
        return f"it took more than {PROBE_SECONDS:.0f} s and was ended"
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "")
    if status < 0:
        return f"the process died of {ended(status)}. {last[:TAIL]}".strip()
    return last[:TAIL] or f"the process ended with {ended(status)}"
