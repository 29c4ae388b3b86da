"""Single sampling values as people write and read them, and which layer each one comes from."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from quantchat.domain.generation import SamplingOverrides, SamplingSettings
from quantchat.errors import UsageError

MEANINGS: Mapping[str, str] = {
    "temperature": "0 always takes the most probable token; higher is freer",
    "top_p": "Keep the fewest tokens whose probabilities add up to this",
    "top_k": "Keep so many of the most probable tokens; 0 keeps all",
    "min_p": "Leave out tokens below this share of the most probable one",
    "typical_p": "Keep tokens of typical information that add up to this",
    "repetition_penalty": "Divides the logits of tokens that were there before; 1 is off",
    "presence_penalty": "Taken once from the logits of tokens that the answer has used",
    "frequency_penalty": "Taken from them as often as the answer has used them",
    "no_repeat_ngram": "No sequence of so many tokens comes twice; 0 is off",
    "logit_bias": 'Added to the logits of texts, as in {"As an AI": -100}',
    "max_new_tokens": "Longest answer in tokens",
    "seed": "The same seed gives the same text again; without one each answer draws its own",
    "stop": 'Texts that end the answer, as in "###", "User:"',
}
ALIASES: Mapping[str, str] = {
    "temp": "temperature",
    "max_tokens": "max_new_tokens",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "repeat_penalty": "repetition_penalty",
    "typical": "typical_p",
}
DEFAULT_WORDS = frozenset({"default", "none", "unset"})
"""Typed as a value, these take the session's own away."""

_KINDS = {field.name: field.type for field in msgspec.structs.fields(SamplingOverrides)}


class Layer(msgspec.Struct, frozen=True):
    """Some values, and where they were set."""

    source: str
    values: SamplingOverrides


class Setting(msgspec.Struct, frozen=True):
    """One value of the next answer, and the layer that it comes from."""

    name: str
    value: Any
    source: str


def settings_of(layers: list[Layer]) -> list[Setting]:
    """Return all values, of the most specific layer that has one; the last layer is quantchat's own."""
    shipped = Layer("default", SamplingOverrides())
    return [_setting(name, [*layers, shipped]) for name in _KINDS]


def _setting(name: str, layers: list[Layer]) -> Setting:
    for layer in layers:
        value = getattr(layer.values, name)
        if value is not None:
            return Setting(name, value, layer.source)
    return Setting(name, getattr(SamplingSettings(), name), layers[-1].source)


def find_setting(typed: str) -> str:
    """Return the name of a setting, from a name in any case, with dashes, an alias, or a beginning that is clear.

    Raises:
        UsageError: if there is none; it names what was probably meant.
    """
    wanted = typed.strip().lower().replace("-", "_")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in _KINDS:
        return wanted
    begun = [name for name in _KINDS if wanted and name.startswith(wanted)]
    if len(begun) == 1:
        return begun[0]
    near = begun or difflib.get_close_matches(wanted, _KINDS, n=2)
    remedy = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(_KINDS)}"
    raise UsageError(f"There is no setting {typed.strip()}", remedy=remedy, code="setting-unknown")


def read_value(name: str, text: str) -> Any:
    """Read what was typed for a setting; None for its default.

    Raises:
        UsageError: if the value is not allowed; it says what is.
    """
    text = text.strip()
    if text.lower() in DEFAULT_WORDS:
        return None
    try:
        return msgspec.convert(_parsed(name, text), _KINDS[name])
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        title = f"{name} cannot be {text[:60] or 'empty'}"
        raise UsageError(title, remedy=f"Allowed: {allowed(name)}; default takes it away", code="setting") from error


def _parsed(name: str, text: str) -> Any:
    if name == "stop":
        return json.loads(text) if text.startswith("[") else json.loads(f"[{text}]") if text[:1] == '"' else [text]
    # A whole number may be meant for a share, never the other way round.
    return json.loads(text)


def shown_value(value: Any) -> str:
    """Write a value as it may be typed again."""
    if value is None:
        return "drawn anew"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ", ".join(json.dumps(text, ensure_ascii=False) for text in value) or "[]"
    return json.dumps(value, ensure_ascii=False)


def allowed(name: str) -> str:
    """Say which values a setting takes."""
    if name == "logit_bias":
        return 'texts with numbers from -100 to 100, as in {"As an AI": -100}'
    if name == "stop":
        return 'a text, or several in quotes, as in "###", "User:"'
    kind = next(one for one in get_args(_KINDS[name]) if one is not type(None))
    number, *metas = get_args(kind) or (kind,)
    whole = "a whole number" if number is int else "a number"
    return f"{whole} {_range(metas[0])}" if metas else whole


def _range(meta: msgspec.Meta) -> str:
    low = f"above {meta.gt:g}" if meta.gt is not None else f"from {meta.ge:g}" if meta.ge is not None else ""
    return f"{low} to {meta.le:g}" if meta.le is not None else f"{low} on"
