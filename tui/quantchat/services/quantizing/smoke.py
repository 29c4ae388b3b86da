"""One question to a model that was just made, and whether its answer makes any sense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingSettings
from quantchat.domain.kernel_table import TABLE
from quantchat.domain.models import ModelInfo
from quantchat.services.engine import EngineFactory
from quantchat.services.headless import Headless
from quantchat.services.loads import LoadStatus
from quantchat.services.quantizing.plan import Smoke

QUESTION = "What is the capital of France, and what is it known for?"
MOST_TOKENS, MOST_SLOW_TOKENS = 80, 20
"""Of an answer; a slow kernel takes a second or two for each."""
FEW_WORDS = 8
"""A shorter answer may say the same word twice."""
COMMON = 0.4
"""No word of a sentence in any language makes up so much of it."""
NEW_PAIRS = 0.4
"""Of the pairs of neighbouring words in a text, at least so many are different ones."""

LOADED = 0.7
"""The share of the load in all of it."""

OnStage = Callable[[str, float], None]
"""Hears what is done now, and the share of all that is done."""


async def ask(model: ModelInfo, on_stage: OnStage, engine_factory: EngineFactory | None = None) -> Smoke:
    """Load a model in an engine process of its own, ask it `QUESTION` greedily, and end the process.

    Raises:
        QuantchatError: if it does not load or answer.
    """
    async with Headless(engine_factory=engine_factory) as engine:
        report = await engine.load(model, lambda status: on_stage(f"loading it: {status.stage}", _loaded(status)))
        on_stage("asking it a question", LOADED)
        most = MOST_SLOW_TOKENS if _is_slow(report.kernel) else MOST_TOKENS
        sampling = SamplingSettings(temperature=0.0, max_new_tokens=most)
        answer = await engine.ask([ChatMessage(role="user", content=QUESTION)], sampling)
    return Smoke(
        question=QUESTION,
        answer=answer.text.strip(),
        tokens_per_second=answer.statistics.tokens_per_second,
        kernel=report.kernel,
        warning=nonsense(answer.text),
    )


def _is_slow(kernel: str) -> bool:
    return any(row.slow for row in TABLE if row.name == kernel)


def _loaded(status: LoadStatus) -> float:
    return LOADED * min(status.done / status.total, 1.0) if status.total else 0.0


def nonsense(answer: str) -> str:
    """Say what is plainly wrong with an answer; empty if nothing is."""
    text = answer.strip()
    if not text:
        return "It said nothing"
    odd = sum(not (char.isprintable() or char.isspace()) or char == "\N{REPLACEMENT CHARACTER}" for char in text)
    if odd * 10 > len(text):
        return "A tenth of the answer or more is no readable text"
    # Some scripts put no spaces between words.
    words = text.split() if len(text.split()) >= len(text) / 20 else list(text)
    word, times = Counter(words).most_common(1)[0]
    if len(words) >= FEW_WORDS and times > COMMON * len(words):
        return f"It says {word[:20]!r} {times} times in {len(words)} words"
    if len(words) >= FEW_WORDS and _goes_round(words):
        return "It says the same words over and over"
    return ""


def _goes_round(words: Sequence[str]) -> bool:
    pairs = list(pairwise(words))
    return len(set(pairs)) < NEW_PAIRS * len(pairs)
