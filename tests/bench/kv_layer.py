"""Decode steps of the demo's model behind a long history: layers that grow in place beside transformers' own.

Both caches hold the same tokens and the same model decodes with them in turn, some steps each; then the caches take a
token without the model.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from bench._report import Figure, parser, report
from demo_model import demo_model
from quantchat.engine import quiet
from quantchat.engine.kvcache import SessionCache

HISTORY = 3000
STEPS = 8
"""Of one cache before the other's turn; the first is not counted."""
MILLI = 1e3
BAR, ALONE_BAR = 1.0, 2.0


def load() -> Any:
    quiet.set_environment()
    quiet.silence()
    import optimum.gptq  # noqa: F401 - registers the kernels

    return AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.bfloat16, device_map={"": "cpu"}).eval()


def fill(model: Any, caches: list[Any], history: int = HISTORY) -> None:
    """Give all caches the same history: random states take as long to attend to as any."""
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    torch.manual_seed(0)
    for layer in range(config.num_hidden_layers):
        states = torch.randn(1, config.num_key_value_heads, history, head_size).to(torch.bfloat16)
        for cache in caches:
            cache.update(states, states.clone(), layer)


def steps(model: Any, cache: Any) -> list[float]:
    """Seconds of some decode steps."""
    token = torch.tensor([[5]])
    taken = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        model(input_ids=token, past_key_values=cache, use_cache=True)
        taken.append(time.perf_counter() - begun)
    return taken[1:]


def writes(cache: Any) -> list[float]:
    """Seconds that taking a token costs in all layers."""
    token = cache.layers[0].keys[:, :, :1].clone()
    taken = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        for layer in range(len(cache.layers)):
            cache.update(token, token, layer)
        taken.append(time.perf_counter() - begun)
    return taken[1:]


@torch.inference_mode()
def measure(rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    model = load()
    caches = {"ours": SessionCache(model).cache, "transformers'": DynamicCache(config=model.config)}
    fill(model, [*caches.values()])
    decoding: dict[str, list[float]] = {name: [] for name in caches}
    alone: dict[str, list[float]] = {name: [] for name in caches}
    for _ in range(rounds):
        for name, cache in caches.items():
            decoding[name] += steps(model, cache)
        for name, cache in caches.items():
            alone[name] += writes(cache)
    return [
        *figures(decoding, f"decode step at {HISTORY:,} tokens", BAR),
        *figures(alone, "taking a token without the model", ALONE_BAR),
    ]


def figures(taken: dict[str, list[float]], what: str, bar: float) -> list[Figure]:
    middle = {name: statistics.median(times) * MILLI for name, times in taken.items()}
    ratio = middle["transformers'"] / middle["ours"]
    return [
        *(Figure(f"{what}, {name}", value, "ms") for name, value in middle.items()),
        Figure(f"{what}, gain", ratio, "times", bar, at_least=True),
    ]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    report(measure(4 if options.quick else 20), as_json=options.json)


if __name__ == "__main__":
    main()
