"""Time to first token with 40 new tokens after a long history, with the session's KV cache and without it.

Both ways go through the engine process with the demo's model and send the same messages, in turn: once in the session
that holds the history, once in a new session, which is forgotten afterwards. The session grows from one length to the
next. Then two sessions of the same length take turns: what a switch there and back costs, beside staying.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._program import Program, Run, running
from bench._report import Figure, parser, report
from bench._samples import prose
from demo_model import demo_model
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings

BARS = {500: 6, 1500: 15, 3000: 20}
"""Tokens of history, and by how much reuse must be faster."""
QUICK = {500: 3, 1500: 2, 3000: 1}
SWITCH_AT = 1500
SWITCH_BAR = 1.5
# A set seed keeps prompt lookup out: whether it guesses depends on the clock, and passes over guesses round otherwise.
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=10, seed=1)
PLACES = ("France", "Spain", "Germany", "Japan", "Greece", "Norway", "Poland")
QUESTION = (
    "{}: please repeat this sentence exactly as it stands, without any other words: "
    "The train to {} leaves at seven in the morning."
)
"""About 40 tokens with the template. Begins with what differs, so that nothing of it is in the cache.

To be repeated, as each word then is far ahead of the second best: where two are level in bfloat16, as in most answers
of so small a model, the order of the sums decides, which differs between one long pass and a short one behind a cache.
"""


@dataclass
class Taken:
    """Seconds to the first token, with reuse and without, of the same questions."""

    reused: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)

    def note(self, warm: Run, cold: Run) -> None:
        self.reused.append(warm.first)
        self.computed.append(cold.first)
        prompt, reused = warm.statistics.prompt_tokens, warm.statistics.reused_tokens
        self.kept.append(reused / prompt)
        self.new.append(prompt - reused)
        self.equal.append(warm.text == cold.text)


class Chat:
    """A conversation that grows to given lengths; its cache is that of session `warm`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._source = prose(Random(4))
        self.messages: list[ChatMessage] = []

    async def grow(self, tokens: int) -> None:
        """Add a turn, so that the next prompt begins with about so many tokens of history."""
        words: list[str] = []
        while await self._program.count(self._with(words)) < tokens:
            words += next(self._source).split()
        while await self._program.count(self._with(words)) > tokens:
            del words[-8:]
        self.messages = self._with(words)
        answer = await self._program.ask(self.messages, GREEDY, "warm")
        self.messages.append(ChatMessage("assistant", answer.text))

    def _with(self, words: list[str]) -> list[ChatMessage]:
        return [*self.messages, ChatMessage("user", " ".join(words))]

    def asking(self, number: int) -> list[ChatMessage]:
        """The history and a question of about 40 tokens."""
        place = PLACES[number % len(PLACES)]
        question = QUESTION.format(place, place)
        return [*self.messages, ChatMessage("user", question)]


async def compare(program: Program, chat: Chat, rounds: int) -> Taken:
    """Ask the same questions with the session's cache and in new sessions."""
    taken = Taken()
    for number in range(rounds):
        question = chat.asking(number)
        warm = await program.ask(question, GREEDY, "warm")
        cold = await program.ask(question, GREEDY, f"cold {number}")
        program.forget(f"cold {number}")
        taken.note(warm, cold)
    return taken


async def switch(program: Program, chat: Chat, rounds: int) -> tuple[float, float]:
    """Median seconds to the first token of turns in the session of the turn before, and of turns in the other one."""
    for session in ("warm", "other"):
        await program.ask(chat.asking(0), GREEDY, session)
    stayed, switched = [], []
    for number in range(1, 2 * rounds, 2):
        for session in ("warm", "other"):
            switched.append((await program.ask(chat.asking(number), GREEDY, session)).first)
            stayed.append((await program.ask(chat.asking(number + 1), GREEDY, session)).first)
    program.forget("other")
    return statistics.median(stayed), statistics.median(switched)


async def measure(folder: Path, rounds: dict[int, int]) -> list[Figure]:
    figures: list[Figure] = []
    equal: list[bool] = []
    async with running(folder) as (program, _):
        chat = Chat(program)
        await chat.grow(64)
        for length, times in BARS.items():
            await chat.grow(length)
            taken = await compare(program, chat, rounds[length])
            equal += taken.equal
            figures += describe(length, times, taken)
            if length == SWITCH_AT:
                stayed, switched = await switch(program, chat, rounds[length])
    figures += [
        Figure(f"stay in a session of {SWITCH_AT}", stayed, "s"),
        Figure("switch there and back", switched, "s"),
        Figure("switch / stay", switched / stayed, "ratio", SWITCH_BAR),
        Figure("same greedy text", sum(equal) / len(equal), "share", 1.0, at_least=True),
    ]
    return figures


def describe(length: int, times: int, taken: Taken) -> list[Figure]:
    reused, computed = statistics.median(taken.reused), statistics.median(taken.computed)
    return [
        Figure(f"{length} tokens: new ones", statistics.median(taken.new), "tokens"),
        Figure(f"{length} tokens: taken from the cache", min(taken.kept), "share"),
        Figure(f"{length} tokens: first token without reuse", computed, "s"),
        Figure(f"{length} tokens: first token with reuse", reused, "s"),
        Figure(f"{length} tokens: with / without", reused / computed, "ratio", 1 / times),
    ]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    rounds = QUICK if options.quick else dict.fromkeys(BARS, 5)
    figures = asyncio.run(measure(demo_model(), rounds))
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
