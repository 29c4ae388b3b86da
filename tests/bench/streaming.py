"""Tokens per second through the whole program, beside bare `model.generate()` with the same kernel.

The program's path is client → engine process → `Generate` with streaming → a consumer that drains 20 times a second, as
the screen does. The bare one runs in a process of its own. Both hold the demo's model and answer the same greedy prompt
in turn; a run counts from the question to the last token. Medians and their ratio are printed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._peer import bare
from bench._program import Run, running
from bench._report import Figure, parser, report
from demo_model import demo_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings

BAR = 0.97
PROMPT = [ChatMessage("user", "Tell me a long story about a lighthouse keeper and the ships that pass in the night.")]
FRANCE = [ChatMessage("user", "What is the capital of France?")]
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=128)


async def measure(folder: Path, rounds: int) -> tuple[list[Run], list[Run], bool]:
    """Runs of both in turn, and whether both found the capital of France."""
    limit = GREEDY.max_new_tokens
    async with running(folder) as (program, loaded), bare(folder, loaded.kernel) as plain:
        answers = [await program.ask(FRANCE, GREEDY), await plain.ask(FRANCE, limit)]
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(await program.ask(PROMPT, GREEDY))
            theirs.append(await plain.ask(PROMPT, limit))
        return ours, theirs, all("Paris" in run.text for run in answers)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    rounds = 4 if options.quick else 12
    ours, theirs, paris = asyncio.run(measure(demo_model(), rounds))
    program = statistics.median(run.rate for run in ours)
    plain = statistics.median(run.rate for run in theirs)
    figures = [
        Figure("program", program, "tok/s"),
        Figure("bare generate", plain, "tok/s"),
        Figure("program / bare generate", program / plain, "ratio", BAR, at_least=True),
        Figure("capital of France is Paris", float(paris), "yes = 1", 1.0, at_least=True),
        Figure("same greedy text", float(ours[0].text == theirs[0].text), "yes = 1"),
        Figure("drafted by prompt lookup", sum(run.statistics.drafted for run in ours), "tokens"),
    ]
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
