"""What loads came to, beside what was predicted: corrects the next prediction. Losing it costs nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quantchat import paths
from quantchat.errors import StorageError
from quantchat.store.atomic import write_atomic

KEPT = 500
"""Loads that are remembered, the last ones."""
VERSION = 1


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load.

    Attributes:
        path: Folder of the model.
        weight_bytes: Sum of its tensors, to know it again.
        kernel: Name in the policy table, or `dense`.
        device: Kind of the device: `cpu`, `cuda`, or `several`.
        versions: Of quantchat and the libraries, as text.
        predicted: Bytes on the device after the load by the formulas.
        measured: Bytes that were there.
    """

    path: str
    weight_bytes: int
    kernel: str
    device: str
    versions: str
    predicted: int
    measured: int

    def same(self, other: Load) -> bool:
        """Whether the other load was of the same model in the same circumstances."""
        return _circumstances(self) == _circumstances(other)


def _circumstances(load: Load) -> tuple[object, ...]:
    return load.path, load.weight_bytes, load.kernel, load.device, load.versions


class Measured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that was measured on this machine.

    Attributes:
        loads: The oldest first.
        idle: Bytes of an engine process without a model, by the versions of its libraries.
    """

    version: int = VERSION
    loads: tuple[Load, ...] = ()
    idle: dict[str, int] = {}

    def add(self, load: Load, idle_bytes: int = 0) -> Measured:
        """Return it with one more load, in place of an earlier one in the same circumstances."""
        kept = [known for known in self.loads if not known.same(load)]
        idle = {load.versions: idle_bytes} if idle_bytes else self.idle
        return Measured(loads=(*kept, load)[-KEPT:], idle=idle)

    def find(self, path: str, weight_bytes: int, kernel: str, device: str, versions: str) -> Load | None:
        """Return the load of a model with a kernel and these libraries: what others took says nothing of them."""
        wanted = path, weight_bytes, kernel, device, versions
        return next((load for load in reversed(self.loads) if _circumstances(load) == wanted), None)

    def idle_bytes(self, versions: str) -> int | None:
        """Bytes of an engine process without a model; None before the first load with these libraries."""
        return self.idle.get(versions)


def default_path() -> Path:
    """Where it is kept."""
    return paths.state_file().with_name("measured.json")


def load_measured(path: Path | None = None) -> Measured:
    """Read it; whatever is wrong with the file, begin afresh."""
    try:
        found = msgspec.json.decode((path or default_path()).read_bytes(), type=Measured)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        return Measured()
    return found if found.version == VERSION else Measured()


def save_measured(measured: Measured, path: Path | None = None) -> bool:
    """Write it; false if the disk refused, which costs only the next prediction its correction."""
    try:
        write_atomic(path or default_path(), msgspec.json.encode(measured))
    except StorageError:
        return False
    return True
