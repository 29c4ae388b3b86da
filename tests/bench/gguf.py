"""SmolLM2 as a GGUF file: our engine process beside llama-cpp-python's own `create_completion`, and KV reuse.

Both load the same file on the same machine and answer the same prompt with as many tokens, in turn; the library with
one thread and with all, and the faster one counts. A request counts from the question to its last token, prompt
included. Then time to first token with 40 new tokens behind a history, with the session's cache and without.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._program import Program, running
from bench._report import Figure, parser, report
from bench.kv_reuse import BARS, Chat, compare, describe
from demo_gguf import demo_gguf
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings

RATIO = 0.95
QUESTION = "Write a very long story about a lighthouse keeper, with many chapters."
TOKENS, CONTEXT = 256, 4096
ROUNDS, QUICK_ROUNDS = 7, 3
SAMPLED = {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "seed": 4}


class Library:
    """llama-cpp-python as its documentation uses it."""

    def __init__(self, path: Path, threads: int) -> None:
        from llama_cpp import Llama

        cores = len(os.sched_getaffinity(0))
        self._model = Llama(str(path), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=cores, verbose=False)

    def tokens_per_second(self, prompt: str, tokens: int, **sampling: Any) -> float:
        ids = self._model.tokenize(prompt.encode(), add_bos=False, special=True)
        self._model.reset()
        begun = time.perf_counter()
        answer = self._model.create_completion(ids, max_tokens=tokens, repeat_penalty=1.0, min_p=0.0, **sampling)
        return answer["usage"]["completion_tokens"] / (time.perf_counter() - begun)


async def race(program: Program, path: Path, rounds: int, **sampling: Any) -> tuple[float, float, float]:
    """Median tokens per second of ours and of the library's faster way, and the median ratio of a round's two."""
    messages = [ChatMessage("user", QUESTION)]
    prompt = await program.render(messages)
    libraries = {threads: Library(path, threads) for threads in sorted({1, len(os.sched_getaffinity(0))})}
    settings = SamplingSettings(**sampling, max_new_tokens=TOKENS)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {threads: [] for threads in libraries}
    for _ in range(rounds):
        for threads, library in libraries.items():
            theirs[threads].append(await asyncio.to_thread(library.tokens_per_second, prompt, TOKENS, **sampling))
        ours.append((await program.ask(messages, settings)).rate)
    # The box grows slower and faster by half: what ran within seconds of each other is compared.
    best = max(theirs.values(), key=statistics.median)
    ratio = statistics.median(own / other for own, other in zip(ours, best, strict=True))
    return statistics.median(ours), statistics.median(best), ratio


async def measure(path: Path, *, quick: bool) -> list[Figure]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    figures: list[Figure] = []
    async with running(path) as (program, _):
        await program.ask([ChatMessage("user", "Hi")], SamplingSettings(temperature=0.0, max_new_tokens=16))
        for name, sampling in {"greedy": {"temperature": 0.0}, "sampled": SAMPLED}.items():
            ours, theirs, ratio = await race(program, path, rounds, **sampling)
            figures += [
                Figure(f"{name}: quantchat", ours, "tok/s"),
                Figure(f"{name}: create_completion", theirs, "tok/s"),
                Figure(f"{name}: ratio", ratio, "ratio", RATIO, at_least=True),
            ]
        chat = Chat(program)
        await chat.grow(64)
        for length, times in BARS.items():
            if quick and length > min(BARS):
                break
            await chat.grow(length)
            figures += describe(length, times, await compare(program, chat, 2 if quick else 5))
    return figures


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    report(asyncio.run(measure(demo_gguf(), quick=options.quick)), as_json=options.json)


if __name__ == "__main__":
    main()
