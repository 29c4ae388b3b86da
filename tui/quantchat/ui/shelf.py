"""The list of models as the sidebar shows it: sorted, grouped by where they lie, filtered by what was typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from quantchat.domain.memory import Fit
from quantchat.domain.models import ModelInfo
from quantchat.domain.servers import PREFIX, host_of, server_path
from quantchat.domain.text import clean
from quantchat.engine.protocol import LoadReport
from quantchat.errors import ErrorReport
from quantchat.services.serverlist import Known
from quantchat.store.state import ModelsOrder
from quantchat.ui.views import model_row
from quantchat.ui.widgets.rows import Row

ORDERS: tuple[ModelsOrder, ...] = get_args(ModelsOrder)
ORDER_WORDS: Mapping[ModelsOrder, str] = {
    "name": "by name",
    "size": "largest first",
    "fit": "what fits first",
    "used": "last used first",
}
_FITS: tuple[Fit | None, ...] = ("fits", "tight", None, "too big", "broken")
SILENCE: Mapping[str, str] = {
    "keys-readable": "keys refused",
    "keys-unreadable": "keys refused",
    "server-address": "wrong address",
    "server-busy": "too busy",
    "server-key": "key refused",
    "server-key-missing": "key missing",
    "server-timeout": "too slow",
    "server-unreachable": "no answer",
}
"""Why a server gives no models, in words for a narrow row; Enter on it tells the whole reason."""
HEADING = "root:"
"""What the ids of rows begin with that are no models."""


@dataclass(frozen=True)
class Wanted:
    """What the user wants to see of the models, and in which order.

    Attributes:
        words: What was typed; a model is shown if all of them occur in what is known of it.
        used: When models were loaded last, by path.
    """

    order: ModelsOrder = "name"
    words: str = ""
    used: Mapping[str, float] = field(default_factory=dict)


class Shelf:
    """Makes the rows, and makes none anew whose model did not change: they are drawn each second."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[ModelInfo, Fit | None, LoadReport | None, str, Row]] = {}

    def rows(
        self,
        models: Iterable[ModelInfo],
        judge: Callable[[ModelInfo], Fit | None],
        loaded: LoadReport | None,
        wanted: Wanted,
        notes: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """One row per model that is wanted, below headings where models of several roots stand in order of name.

        Args:
            notes: What else is said of models, by path.
        """
        words = wanted.words.casefold().split()
        judged = [(model, judge(model)) for model in models if matches(model, words)]
        if wanted.order != "name":
            judged.sort(key=lambda pair: _place(pair[0], pair[1], wanted))
        made, self._made = self._made, {}
        said = notes or {}
        rows = {model.path: self._row(made, model, fit, loaded, said.get(model.path, "")) for model, fit in judged}
        if wanted.order != "name":
            return list(rows.values())
        return grouped([model for model, _ in judged], rows)

    def _row(
        self,
        made: Mapping[str, tuple[ModelInfo, Fit | None, LoadReport | None, str, Row]],
        model: ModelInfo,
        fit: Fit | None,
        loaded: LoadReport | None,
        note: str,
    ) -> Row:
        here = loaded if loaded is not None and loaded.path == model.path else None
        old = made.get(model.path)
        if old is not None and old[0] is model and old[1:4] == (fit, here, note):
            self._made[model.path] = old
            return old[4]
        row = model_row(model, fit, here, note)
        self._made[model.path] = model, fit, here, note, row
        return row


def matches(model: ModelInfo, words: Sequence[str]) -> bool:
    """Whether all words occur in a model's name or quantization, in any case."""
    if not words:
        return True
    known = f"{model.name} {model.quant.label()} {model.server}".casefold()
    return all(word in known for word in words)


def grouped(models: Sequence[ModelInfo], rows: Mapping[str, Row]) -> list[Row]:
    """Put rows below the roots of their models, if there are several."""
    roots: dict[str, list[Row]] = {}
    served: dict[str, tuple[str, str]] = {}
    for model in models:
        place = f"{PREFIX}{model.server}" if model.server else model.root
        roots.setdefault(place, []).append(rows[model.path])
        if model.server:
            served[place] = model.server, model.root
    if len(roots) < 2:
        return list(rows.values())
    # Servers below what is on this machine.
    named = sorted(
        (root in served, server_name(*served[root]) if root in served else root_name(root), root) for root in roots
    )
    return [row for _, name, root in named for row in (_heading(root, name), *roots[root])]


def server_name(name: str, url: str) -> str:
    """Say which server it is: its name, and where it is."""
    return clean(f"{name} · {host_of(url)}", newlines=False)


def silent_rows(servers: Iterable[Known], asking: Collection[str], wanted: Wanted) -> list[Row]:
    """One row for each server that gives no models, with the reason."""
    words = wanted.words.casefold().split()
    silent = (server for server in servers if server.listing is not None and not server.listing.models)
    return [
        Row(
            server_path(server.name, ""),
            server_name(server.name, server.spec.url),
            "asking …" if server.name in asking else _silence(server.error),
            "!",
            "$error",
        )
        for server in silent
        if all(word in server.name.casefold() for word in words)
    ]


def _silence(error: ErrorReport | None) -> str:
    return SILENCE.get(error.code, "failed") if error is not None else "no models"


def _heading(root: str, name: str) -> Row:
    return Row(HEADING + root, name, mark="─", enabled=False)


def root_name(root: str) -> str:
    """Say which root it is: the usual ones by what they are, others by their path."""
    from quantchat.catalog.roots import usual_roots

    for usual in usual_roots():
        if str(usual.path) == root:
            return usual.label[:1].upper() + usual.label[1:]
    home = str(Path.home())
    inside = home != os.sep and (root + os.sep).startswith(home + os.sep)
    return clean("~" + root[len(home) :] if inside else root, newlines=False)


def next_order(order: ModelsOrder) -> ModelsOrder:
    """The order that comes after another."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]


def _place(model: ModelInfo, fit: Fit | None, wanted: Wanted) -> tuple[float, str]:
    """Where a model stands in an order other than that of names, which decide among equals."""
    if wanted.order == "size":
        place = -float(model.weight_bytes or model.disk_bytes)
    elif wanted.order == "fit":
        place = float(_FITS.index(fit))
    else:
        place = -wanted.used.get(model.path, 0.0)
    return place, model.name.casefold()
