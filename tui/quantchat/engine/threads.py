"""How many CPU threads a model computes with, measured on this machine as it is now."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from quantchat.engine.pace import ROUNDS, STEPS, DecodeThreads, ThreadChoice, candidates, cores, fastest


class Threads(ThreadChoice):
    """CPU threads of torch's next pass."""

    def use(self, tokens: int) -> None:
        """Set the count for a pass over so many tokens."""
        count = self.count(tokens)
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


def calibrate(model: Any, device: str) -> DecodeThreads:
    """Find the thread count that decodes fastest: of 1, half, all but one and all cores.

    Decoding is bound by memory, so that more threads gain little; with other busy processes on the cores, OpenMP's
    spinning makes all of them ten times slower than one. On a GPU nothing is measured and one thread is right.
    """
    if device != "cpu":
        return DecodeThreads()
    counts = candidates(cores())
    if len(counts) == 1:
        return DecodeThreads()
    before = torch.get_num_threads()
    try:
        return fastest(_measure(model, counts))
    finally:
        torch.set_num_threads(before)


def _measure(model: Any, counts: list[int]) -> dict[int, float]:
    """Median seconds of a decode step per thread count, the counts taking turns."""
    ids = torch.zeros((1, 16), dtype=torch.long)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True).past_key_values
        for _ in range(ROUNDS):
            for count in counts:
                torch.set_num_threads(count)
                taken[count] += _steps(model, cache)
    return {count: statistics.median(times) for count, times in taken.items()}


def _steps(model: Any, cache: Any) -> list[float]:
    """Seconds of some decode steps; the first, which wakes the threads, is not counted."""
    token = torch.zeros((1, 1), dtype=torch.long)
    times = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        model(input_ids=token, past_key_values=cache, use_cache=True)
        times.append(time.perf_counter() - begun)
    return times[1:]
