"""Bits per weight where a config does not say them in a number of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Config = Mapping[str, object]
Bits = Callable[[Config], int | None]

_WIDTH = re.compile(r"(?:int|float|uint|fp)_?(\d)", re.IGNORECASE)
_CODEBOOKS = {"E8P12": 2, "E8P12RVQ3B": 3, "E8P12RVQ4B": 4, "D4": 2, "HI": 4}
"""The codebooks of QuIP#: https://github.com/Cornell-RelaxML/quip-sharp, `lib/codebook`."""


def always(bits: int) -> Bits:
    """Return the rule of a format that has one width."""
    return lambda _: bits


def bitsandbytes(config: Config) -> int | None:
    """Two switches, of which one is on."""
    if config.get("load_in_4bit") is True:
        return 4
    return 8 if config.get("load_in_8bit") is True else None


def aqlm(config: Config) -> int | None:
    """Codes of so many bits from so many codebooks stand for a group of weights."""
    keys = ("nbits_per_codebook", "num_codebooks", "in_group_size", "out_group_size")
    code, books, inputs, outputs = (_small(config.get(key)) for key in keys)
    return round(code * max(books, 1) / (max(inputs, 1) * max(outputs, 1))) or None


def quip(config: Config) -> int | None:
    """By the name of the codebook."""
    named = config.get("codebook")
    return _CODEBOOKS.get(named) if isinstance(named, str) else None


def by_name(*places: tuple[str, ...]) -> Bits:
    """Return the rule that reads the width in a name such as `Int4WeightOnlyConfig` or `NVFP4`."""

    def rule(config: Config) -> int | None:
        for place in places:
            value: object = config
            for key in place:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, str) and (found := _WIDTH.search(value[:100])):
                return int(found[1]) or None
        return None

    return rule


def _small(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1024 else 0
