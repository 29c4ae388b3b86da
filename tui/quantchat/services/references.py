"""Which model another one was made from: what its quality is measured against."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from quantchat.domain.models import ModelInfo
from quantchat.store.quality import load_quality

CARD = "README.md"
MOST_CARD = 64 * 1024
LEAST_ALIKE = 4
"""Letters that two names must have in common at their beginning."""
_BASE = re.compile(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?[\"']?([^\s\"'\[\]]+)", re.MULTILINE)
_LETTERS = re.compile(r"[^a-z0-9]+")


def candidates(model: ModelInfo, models: Iterable[ModelInfo]) -> list[ModelInfo]:
    """Return the models that may be a model's reference: of the same network, unquantized and loadable."""
    return [
        other
        for other in models
        if other.path != model.path
        and other.quant.method == "none"
        and other.loadable
        and other.architecture == model.architecture
        and other.shape == model.shape
    ]


def guess_reference(model: ModelInfo, models: Sequence[ModelInfo]) -> ModelInfo | None:
    """Return the model that another was made from, if that can be told; reads the model's card.

    What it was measured against last comes first, then what its card names, then the one whose name begins most alike.
    """
    possible = candidates(model, models)
    if model.quant.method == "none" or not possible:
        return None
    by_path = {os.path.realpath(other.path): other for other in possible}
    for quality in load_quality(model.path):
        if quality.reference_path and os.path.realpath(quality.reference_path) in by_path:
            return by_path[os.path.realpath(quality.reference_path)]
    base = base_model(Path(model.path))
    named = [other for other in possible if base and _is_named(other, base)]
    return named[0] if named else _most_alike(model, possible)


def base_model(folder: Path) -> str:
    """Return the `base_model` of a model card's front matter; empty without one."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_CARD)
    except OSError:
        return ""
    head = text[4:].partition("\n---")[0] if text.startswith("---\n") else ""
    found = _BASE.search(head)
    return found[1] if found else ""


def _is_named(model: ModelInfo, base: str) -> bool:
    """Whether a model is what a card calls so; without the owner where one of the two has none."""
    name, wanted = model.name.casefold(), base.casefold()
    if "/" in name and "/" in wanted:
        return name == wanted
    return _plain(name.rpartition("/")[2]).startswith(_plain(wanted.rpartition("/")[2]))


def _most_alike(model: ModelInfo, possible: Sequence[ModelInfo]) -> ModelInfo | None:
    """The one whose name begins like the model's for longest, unless several do."""
    own = _plain(model.name.rpartition("/")[2])
    alike = {other.path: _common(own, _plain(other.name.rpartition("/")[2])) for other in possible}
    best = max(alike.values())
    chosen = [other for other in possible if alike[other.path] == best]
    return chosen[0] if best >= LEAST_ALIKE and len(chosen) == 1 else None


def _plain(name: str) -> str:
    return _LETTERS.sub("", name.casefold())


def _common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
