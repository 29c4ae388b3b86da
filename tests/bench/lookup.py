"""Decoding with prompt lookup against decoding without, with the real 4-bit model, greedily.

`edit` asks for a text back, as edits of code do, and the answer repeats the prompt; `prose` asks for new text, where
guessing cannot pay and must not cost. Both ways take turns in one process.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import Figure, parser, report
from demo_model import demo_model
from engine.words import Bench
from quantchat.catalog.reader import read_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings, TurnStatistics
from quantchat.engine import loader, quiet
from quantchat.engine.lookup import PromptLookup
from quantchat.engine.protocol import Delta, Finished, Load

BAR_EDIT, BAR_PROSE = 1.3, 0.95
CODE = "\n".join(
    f"def load_{name}(path):\n    with open(path) as file:\n        return [line.strip() for line in file]\n"
    for name in ("users", "orders", "prices", "cities")
)
PROMPTS = {
    "edit": f"Repeat this code exactly:\n\n{CODE}",
    "prose": "Write a short story about a lighthouse keeper who finds a strange letter.",
}


class Measured:
    """The model, asked with and without guesses."""

    def __init__(self) -> None:
        # The libraries' banners would stand before the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            quiet.set_environment()
            quiet.silence()
            self._bench = Bench(
                loader.load(Load(request="", model=read_model(demo_model()), device="cpu"), lambda _: None)
            )

    def ask(self, prompt: str, tokens: int, *, guessing: bool) -> tuple[str, TurnStatistics]:
        """Answer once; return the text and what it cost."""
        self._bench.events.clear()
        sampling = SamplingSettings(temperature=0, max_new_tokens=tokens)
        with patch.object(PromptLookup, "propose", PromptLookup.propose if guessing else lambda *_: []):
            name = self._bench.start([ChatMessage("user", prompt)], sampling)
            end = self._bench.run()[name]
        assert isinstance(end, Finished), end
        return "".join(e.text for e in self._bench.events if isinstance(e, Delta)), end.statistics


def measure(model: Measured, kind: str, rounds: int, tokens: int) -> list[Figure]:
    rates: dict[bool, list[float]] = {True: [], False: []}
    texts: dict[bool, str] = {}
    costs: dict[bool, TurnStatistics] = {}
    for _ in range(rounds):
        for guessing in (True, False):
            texts[guessing], costs[guessing] = model.ask(PROMPTS[kind], tokens, guessing=guessing)
            rates[guessing].append(costs[guessing].tokens_per_second)
    with_it, without = (statistics.median(rates[guessing]) for guessing in (True, False))
    cost = costs[True]
    return [
        Figure(f"{kind}: without", without, "tok/s"),
        Figure(f"{kind}: with prompt lookup", with_it, "tok/s"),
        Figure(f"{kind}: ratio", with_it / without, "times", BAR_EDIT if kind == "edit" else BAR_PROSE, at_least=True),
        Figure(f"{kind}: drafted", cost.drafted, "tokens"),
        Figure(f"{kind}: accepted", cost.accepted, "tokens"),
        Figure(f"{kind}: same text", float(texts[True] == texts[False]), "of 1"),
    ]


def main() -> None:
    chosen = parser(__doc__ or "").parse_args()
    rounds, tokens = (1, 64) if chosen.quick else (5, 192)
    model = Measured()
    model.ask("Hello", 8, guessing=True)
    report([figure for kind in PROMPTS for figure in measure(model, kind, rounds, tokens)], as_json=chosen.json)


if __name__ == "__main__":
    main()
