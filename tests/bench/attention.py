"""Passes of the demo's model on the CPU behind histories of several lengths: our attention, and transformers'.

The same model and cache go both ways in turn, on one thread: one token, four at once, as drafts are checked, and forty,
a short question.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bench._report import Figure, parser, report
from bench.kv_layer import fill, load
from quantchat.engine.attention import attend
from quantchat.engine.kvcache import SessionCache

BARS = {100: 1.0, 1500: 0.7, 3000: 0.6}
"""Tokens of history, and what of transformers' time a step may take."""
STEPS = 4
"""Of one way before the other's turn; the first is not counted."""


def steps(model: Any, cache: Any, tokens: int) -> list[float]:
    """Seconds of some passes over so many new tokens."""
    inputs = torch.full((1, tokens), 5)
    taken = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        model(input_ids=inputs, past_key_values=cache, use_cache=True)
        taken.append(time.perf_counter() - begun)
    return taken[1:]


@torch.inference_mode()
def measure(rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    model, figures = load(), []
    theirs = ALL_ATTENTION_FUNCTIONS["sdpa"]
    for history, bar in BARS.items():
        cache = SessionCache(model).cache
        fill(model, [cache], history)
        for tokens in (1, 4, 40):
            taken: dict[str, list[float]] = {"ours": [], "transformers": []}
            for _ in range(rounds):
                for name, function in (("ours", attend), ("transformers", theirs)):
                    ALL_ATTENTION_FUNCTIONS["sdpa"] = function
                    taken[name] += steps(model, cache, tokens)
            ours, plain = (statistics.median(taken[name]) for name in taken)
            what = f"{tokens} behind {history}"
            figures += [
                Figure(f"{what}: transformers", plain * 1e3, "ms"),
                Figure(f"{what}: ours", ours * 1e3, "ms"),
                Figure(f"{what}: ours / transformers", ours / plain, "ratio", bar if tokens == 1 else None),
            ]
    return figures


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    report(measure(2 if options.quick else 5), as_json=options.json)


if __name__ == "__main__":
    main()
