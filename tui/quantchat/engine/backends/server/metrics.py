"""What servers publish for Prometheus, as far as the status bar shows it; names differ by server and age."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$")
_MODEL = re.compile(r'model_name="((?:[^"\\]|\\.)*)"')

RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "llamacpp:requests_processing",
    "tgi_batch_current_size",
)
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred", "tgi_queue_size")
CACHE_USED = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
PREFIX_HITS = ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")
PREFIX_QUERIES = ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")
HIT_RATE = ("vllm:gpu_prefix_cache_hit_rate", "sglang:cache_hit_rate")
"""Shares since the server was started, by those that count neither hits nor queries."""
_WANTED = frozenset((*RUNNING, *WAITING, *CACHE_USED, *PREFIX_HITS, *PREFIX_QUERIES, *HIT_RATE))


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """As in `ServerState`; hits and queries are counts of tokens since the server was started."""

    running: int | None = None
    waiting: int | None = None
    cache_used: float | None = None
    hits: float | None = None
    queries: float | None = None
    hit_rate: float | None = None


def read_metrics(text: str, model: str = "") -> Figures:
    """Read a page of metrics; of those that name models only the given one's, if it is among them."""
    found = _samples(text, model)
    used, rate = _mean(_first(found, CACHE_USED)), _mean(_first(found, HIT_RATE))
    return Figures(
        running=_whole(_first(found, RUNNING)),
        waiting=_whole(_first(found, WAITING)),
        cache_used=None if used is None else min(max(used, 0.0), 1.0),
        hits=_sum(_first(found, PREFIX_HITS)),
        queries=_sum(_first(found, PREFIX_QUERIES)),
        hit_rate=rate if rate is not None and 0 <= rate <= 1 else None,
    )


def _samples(text: str, model: str) -> dict[str, list[float]]:
    """The values of the wanted metrics, one for each engine of the server."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in text.splitlines():
        match = _LINE.match(line) if line[:1] not in ("", "#") else None
        name = match[1].removesuffix("_total") if match else ""
        if match is not None and name in _WANTED and (value := _number(match[3])) is not None:
            labelled = _MODEL.search(match[2] or "")
            found.setdefault(name, []).append((labelled[1] if labelled else "", value))
    return {name: _of_model(rows, model) for name, rows in found.items()}


def _of_model(rows: Sequence[tuple[str, float]], model: str) -> list[float]:
    own = [value for name, value in rows if name == model]
    return own or [value for _, value in rows]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None


def _first(found: Mapping[str, list[float]], names: Sequence[str]) -> list[float]:
    return next((found[name] for name in names if name in found), [])


def _sum(values: Sequence[float]) -> float | None:
    return sum(values) if values else None


def _whole(values: Sequence[float]) -> int | None:
    return round(sum(values)) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
