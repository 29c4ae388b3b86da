"""What a quantization format is made of: the parts that the table in `formats` is written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from quantchat.catalog.groups import Group
from quantchat.domain.models import QuantSpec

Path = tuple[str, ...]


class Setting(msgspec.Struct, frozen=True):
    """Where a setting may stand, most usual place first, and what it must be.

    Attributes:
        places: Key paths; `*` takes the first value of an object.
        kind: Type of the value.
        default: What the format's library takes when the config is silent; `...` if it must be said.
    """

    places: tuple[Path, ...]
    kind: type = int
    default: object = None


class Package(msgspec.Struct, frozen=True):
    """A package that a format needs and quantchat does not install.

    Attributes:
        name: What pip calls it.
        lowest: The first version that the installed transformers accepts.
    """

    name: str
    lowest: str

    @property
    def install(self) -> str:
        """The exact command."""
        return f"pip install '{self.name}>={self.lowest}'"


class Refusal(msgspec.Struct, frozen=True):
    """Why something cannot run here, and what to do if there is more to do than to take another version."""

    reason: str
    remedy: str = ""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How one quantization format writes its config and its tensors, and whether it can run here.

    Attributes:
        method: Canonical `quant_method`.
        names: Other names of it.
        settings: Fields of `QuantSpec` to where they stand.
        raw_names: Field of `QuantSpec` to the key that transformers reads, where the two differ.
        extras: Further settings that transformers reads: key to where they stand.
        bits: How to tell the bits per weight where no setting says them.
        kernels: It runs on the kernels of the kernel table, which knows what they take; its config is held to the
            types of the settings, because a wrong one would load as noise.
        package: It runs once this is installed.
        note: What to know of it though it runs.
        cannot: Why it cannot run here; empty if it can.
        variants: Why some of its packings cannot.
        unpacked: Its weights are 16-bit in memory.
        unpacked_variants: Those of some of its packings are.
        packed: Suffix of tensors that pack several weights into an integer.
        beside: Suffixes of tensors that go with the weights and are none.
        signs: Suffixes of tensors that only this format has.
        described: Its tensors say everything: it can be read where no config names it.
        misfit: Why the tensors of a model cannot be read though the format can; empty if they can.
        counts: Whether weights can be counted from the headers.
    """

    method: str
    names: tuple[str, ...] = ()
    title: str = ""
    settings: Mapping[str, Setting] = {}
    raw_names: Mapping[str, str] = {}
    extras: Mapping[str, Setting] = {}
    bits: Callable[[Mapping[str, object]], int | None] | None = None
    kernels: bool = False
    package: Package | None = None
    note: str = ""
    cannot: str = ""
    variants: Mapping[str, Refusal] = {}
    unpacked: bool = False
    unpacked_variants: tuple[str, ...] = ()
    packed: str = ""
    beside: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    described: bool = False
    misfit: Callable[[Sequence[Group], QuantSpec], str] | None = None

    def unpacks(self, spec: QuantSpec) -> bool:
        """Whether the weights of a model are 16-bit in memory."""
        return self.unpacked or spec.checkpoint_format in self.unpacked_variants

    counts: bool = True


class Source(msgspec.Struct, frozen=True):
    """A place that may hold a quantization config, and the method that it means when it names none."""

    file: str
    key: Path = ()
    method: str = ""


def at(*places: str, kind: type = int, default: object = None) -> Setting:
    """Return a setting by its dotted key paths."""
    return Setting(tuple(tuple(place.split(".")) for place in places), kind, default)
