"""Microseconds per token of quantchat's sampler, beside transformers' processors with `torch.multinomial`.

One thread; each setting samples from the same float32 logits, whose probabilities fall as those of words do, with a
prompt of 1,000 tokens behind the penalties. The bar is on what the sampler costs beyond one bare `argmax` of the same
logits in a loop of its own. "after work" is the same right after other work emptied the caches of the CPU, as a forward
pass does: then each operation costs some 20 µs more.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from bench._report import Figure, parser, report
from quantchat.domain.generation import SamplingSettings
from quantchat.engine.sampling import Sampler

Way = Callable[[torch.Tensor], int]

VOCABULARIES = (49_152, 151_936)
PROMPT = list(range(0, 4_000, 4))
BAR_MICROSECONDS = 100.0
BLOCKS = 5
SETTINGS = {
    "greedy": SamplingSettings(temperature=0),
    "top-k, top-p": SamplingSettings(temperature=0.7, top_k=50, top_p=0.95),
    "top-k, top-p, penalties": SamplingSettings(repetition_penalty=1.1, no_repeat_ngram=4),
    "top-p": SamplingSettings(top_k=0),
    "no filter": SamplingSettings(temperature=1.0, top_k=0, top_p=1.0),
}
BARRED = ("greedy", "top-k, top-p")


def transformers_sampler(wanted: SamplingSettings) -> Way:
    """What `generate` does after each forward pass."""
    chain = LogitsProcessorList()
    if wanted.repetition_penalty != 1:
        chain.append(logits_process.RepetitionPenaltyLogitsProcessor(wanted.repetition_penalty))
    if wanted.no_repeat_ngram:
        chain.append(logits_process.NoRepeatNGramLogitsProcessor(wanted.no_repeat_ngram))
    sampled = wanted.temperature > 0
    if sampled and wanted.temperature != 1:
        chain.append(logits_process.TemperatureLogitsWarper(wanted.temperature))
    if sampled and wanted.top_k:
        chain.append(logits_process.TopKLogitsWarper(wanted.top_k))
    if sampled and wanted.top_p < 1:
        chain.append(logits_process.TopPLogitsWarper(wanted.top_p))
    ids = torch.tensor([PROMPT])

    def sample(logits: torch.Tensor) -> int:
        scores = chain(ids, logits[None].to(copy=True, dtype=torch.float32))
        if not sampled:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), num_samples=1))

    return sample


def quantchat_sampler(wanted: SamplingSettings) -> Way:
    sampler = Sampler(wanted, seed=1, tokenizer=None, prompt=PROMPT, device="cpu")

    def sample(logits: torch.Tensor) -> int:
        token = sampler.sample(logits)
        sampler.accept(token)
        return token

    return sample


def microseconds(
    ways: dict[str, Way], logits: torch.Tensor, rounds: int, work: Callable[[], object]
) -> dict[str, float]:
    """Median of each way, measured in blocks by turns so that noise meets all of them."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(BLOCKS):
        for name, way in ways.items():
            way(logits)
            for _ in range(rounds // BLOCKS):
                work()
                begun = time.perf_counter()
                way(logits)
                spent[name].append((time.perf_counter() - begun) * 1e6)
    return {name: statistics.median(times) for name, times in spent.items()}


def other_work() -> Callable[[], object]:
    """A function that does a few hundred small operations and reads 50 MB of weights."""
    weights = [torch.randn(576, 1536) for _ in range(15)]
    state = torch.randn(1, 576)

    def work() -> torch.Tensor:
        row = state
        for weight in weights:
            inner = torch.nn.functional.silu(row * torch.rsqrt(row.pow(2).mean(-1, keepdim=True) + 1e-5) @ weight)
            row = torch.cat((inner @ weight.T, row), 0).transpose(0, 1).reshape(2, -1)[:1] * 1e-3
        return row

    return work


def figures(rounds: int) -> Iterator[Figure]:
    work = other_work()
    for size in VOCABULARIES:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
        logits = -1.2 * torch.log(order + 1.0)
        for name, wanted in SETTINGS.items():
            ways: dict[str, Way] = {
                "argmax": lambda row: int(row.argmax()),
                "ours": quantchat_sampler(wanted),
                "theirs": transformers_sampler(wanted),
            }
            hot = microseconds(ways, logits, rounds, lambda: None)
            cold = microseconds(ways, logits, rounds // 2, work)
            title = f"{size:,} tokens, {name}"
            bar = BAR_MICROSECONDS if name in BARRED else None
            yield Figure(f"{title}: beyond argmax", hot["ours"] - hot["argmax"], "µs", bar)
            yield Figure(f"{title}: quantchat", hot["ours"], "µs")
            yield Figure(f"{title}: transformers / quantchat", hot["theirs"] / hot["ours"], "times")
            yield Figure(f"{title}: beyond argmax, after work", cold["ours"] - cold["argmax"], "µs")
            yield Figure(f"{title}: transformers / quantchat, after work", cold["theirs"] / cold["ours"], "times")


def main() -> None:
    chosen = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        report(list(figures(60 if chosen.quick else 400)), as_json=chosen.json)


if __name__ == "__main__":
    main()
