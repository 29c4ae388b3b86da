"""From our sampling settings to the fields of a request, and back from a refusal to the setting it means."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from quantchat.domain.generation import SamplingOverrides, SamplingSettings
from quantchat.engine.backends.server.faults import ServerFault
from quantchat.engine.backends.server.kinds import Dialect
from quantchat.errors import GenerationError

DRAWN_SEEDS = 2**31
MOST_STOPS = 4
"""OpenAI's bound; beyond it the texts are only looked for here, as they are in any case."""
NEUTRAL: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "no_repeat_ngram": 0,
}
"""With these values settings do nothing."""
_DRAWING = frozenset({"top_p", "top_k", "min_p", "typical_p"})
"""Without effect on greedy decoding."""


class Fields(msgspec.Struct, frozen=True):
    """Fields of a request that come from sampling settings.

    Attributes:
        values: Field to value.
        names: Field to our setting.
        seed: As in `TurnStatistics`.
    """

    values: dict[str, Any]
    names: dict[str, str]
    seed: int | None


def unknown_defaults(dialect: Dialect) -> SamplingOverrides:
    """Return quantchat's defaults that a server does not know, as values that do nothing: nobody has asked for them."""
    defaults = SamplingSettings()
    # A server of unknown kind may refuse what it does not know.
    known = dialect.fields if dialect.whole else {"temperature", "top_p"}
    odd = {name: value for name, value in NEUTRAL.items() if name not in known and getattr(defaults, name) != value}
    return SamplingOverrides(**odd)  # type: ignore[arg-type]


def fields_of(sampling: SamplingSettings, dialect: Dialect) -> Fields:
    """Write settings as a server takes them; biased texts and stop texts are left to the caller.

    Raises:
        GenerationError: `sampling-rejected`, if one that does something is unknown there.
    """
    wanted = {name: getattr(sampling, name) for name in NEUTRAL}
    if sampling.temperature == 0:
        wanted = {name: value for name, value in wanted.items() if name not in _DRAWING}
    effective = {name: value for name, value in wanted.items() if value != NEUTRAL[name]}
    if unknown := [name for name in effective if name not in dialect.fields]:
        raise rejected(unknown, f"{dialect.label} does not know {_listed(unknown)}.")
    sent = {name: value for name, value in (wanted if dialect.whole else effective).items() if name in dialect.fields}
    values: dict[str, Any] = {}
    nested: dict[str, Any] = {"do_sample": sampling.temperature > 0} if dialect.nested else {}
    for name, value in sent.items():
        into = nested if name in dialect.nested else values
        into[dialect.fields[name]] = dialect.all_k if (name, value) == ("top_k", 0) else value
    if nested:
        values["generation_config"] = msgspec.json.encode(nested).decode()
    seed = _seed(sampling, dialect)
    if seed is not None:
        values["seed"] = seed
    names = {dialect.fields[name]: name for name in sent} | {"seed": "seed", dialect.limit: "max_new_tokens"}
    return Fields(values, names, seed)


def _seed(sampling: SamplingSettings, dialect: Dialect) -> int | None:
    if sampling.temperature == 0:
        return None
    if sampling.seed is None:
        return secrets.randbelow(DRAWN_SEEDS) if dialect.seeds else None
    if sampling.seed > dialect.most_seed:
        raise rejected(["seed"], f"{dialect.label} takes none above {dialect.most_seed:,}.")
    return sampling.seed


def refused_settings(fault: ServerFault, names: Mapping[str, str]) -> list[str]:
    """Return our names of the settings whose fields the server names in a refusal."""
    if fault.status not in (400, 422):
        return []
    words = set(re.findall(r"[a-z_]+", fault.said.lower()))
    return [name for field, name in names.items() if field in words]


def rejected(names: list[str], detail: str) -> GenerationError:
    """Say that a server does not take some settings."""
    remedy = " and ".join(
        f"/set {name} {NEUTRAL[name]:g}" if name in NEUTRAL else f"/set {name} default" for name in names
    )
    return GenerationError(
        f"The server does not take {_listed(names)}", detail, f"Take it back: {remedy}.", code="sampling-rejected"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
