"""Named sampling settings that a session can be given as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from quantchat.domain.generation import SamplingOverrides
from quantchat.errors import UsageError

DEFAULT = "default"
"""What the user's settings and the model say."""

SHIPPED: Mapping[str, SamplingOverrides] = {
    DEFAULT: SamplingOverrides(),
    "exact": SamplingOverrides(temperature=0.0),
    "precise": SamplingOverrides(temperature=0.2, top_k=40, top_p=0.9),
    "balanced": SamplingOverrides(temperature=0.7, top_k=50, top_p=0.95),
    "creative": SamplingOverrides(temperature=1.1, top_k=0, top_p=1.0, min_p=0.05),
}


def known_presets(own: Mapping[str, SamplingOverrides]) -> dict[str, SamplingOverrides]:
    """Return the shipped presets and the user's own, which win over shipped ones of the same name."""
    return {**SHIPPED, **own}


def find_preset(presets: Mapping[str, SamplingOverrides], wanted: str) -> str:
    """Return the name of a preset as it is written, whatever the case it was typed in.

    Raises:
        UsageError: if there is none; it says which one was probably meant, or which there are.
    """
    if wanted in presets:
        return wanted
    names = {name.casefold(): name for name in presets}
    if wanted.casefold() in names:
        return names[wanted.casefold()]
    near = [names[name] for name in difflib.get_close_matches(wanted.casefold(), names, n=2)]
    remedy = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(presets)}"
    raise UsageError(f"There is no preset {wanted}", remedy=remedy, code="preset-unknown")


def label_of(preset: str, sampling: SamplingOverrides, presets: Mapping[str, SamplingOverrides]) -> str:
    """Name a session's sampling: by its preset, with a `*` where single values differ from it; empty for the default.

    A preset that is gone, or was changed since, counts as what the session was given.
    """
    if not preset:
        return "own*" if sampling != SHIPPED[DEFAULT] else ""
    known = presets.get(preset)
    return preset if known is None or sampling == known else f"{preset}*"


def own_values(preset: str, sampling: SamplingOverrides, presets: Mapping[str, SamplingOverrides]) -> SamplingOverrides:
    """Return the values of a session that its preset does not have."""
    given = presets.get(preset, SamplingOverrides()) if preset else SamplingOverrides()
    differing = {
        name: value for name, value in msgspec.structs.asdict(sampling).items() if value != getattr(given, name)
    }
    return SamplingOverrides(**differing)


def describe_preset(values: SamplingOverrides) -> str:
    """Say what a preset sets, in a few words."""
    parts = [
        f"{name.replace('_', '-')} {_shown(value)}"
        for name, value in msgspec.structs.asdict(values).items()
        if value is not None
    ]
    return ", ".join(parts) or "as set in config.toml and by the model"


def _shown(value: object) -> str:
    return (
        f"{value:g}" if isinstance(value, int | float) else f"({len(value)})" if isinstance(value, dict | tuple) else ""
    )
