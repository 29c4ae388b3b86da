"""Endless text of each kind of block, the same at every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

_WORDS = (  # noqa: SIM905
    "the a of and in to it was he that with on for at by from as keeper lighthouse shore ship night lamp wind water "
    "rope stone window morning letter captain harbour signal weather paper number memory kernel tensor column matrix "
    "bandwidth token model answer question quietly slowly again never always between under above before after because "
    "however although something nothing everything together remember understand measure compare carry turn watch wait"
).split()
_HAN = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能"


def prose(random: Random) -> Iterator[str]:
    while True:
        sentences = (" ".join(random.choices(_WORDS, k=random.randint(6, 18))) for _ in range(random.randint(4, 9)))
        yield " ".join(f"{sentence.capitalize()}." for sentence in sentences) + "\n\n"


def code(random: Random) -> Iterator[str]:
    yield "```python\n"
    for number in count():
        first, second, third = random.choices(_WORDS, k=3)
        yield f"def {first}_{number}({second}: int, {third}: list[str]) -> str:\n"
        yield f'    """{" ".join(random.choices(_WORDS, k=6)).capitalize()}."""\n'
        yield f"    total = sum(len(item) for item in {third}) + {random.randint(1, 999)} * {second}\n"
        yield f"    if total > {number}:  # {' '.join(random.choices(_WORDS, k=4))}\n"
        yield f'        return f"{first} of {{total}}"\n    return "{second}"\n\n\n'


def bullets(random: Random) -> Iterator[str]:
    while True:
        indent = "  " * random.choice((0, 0, 0, 1))
        yield f"{indent}- **{random.choice(_WORDS)}** {' '.join(random.choices(_WORDS, k=random.randint(5, 25)))}\n"


def table(random: Random) -> Iterator[str]:
    yield "| step | what | where | why |\n|---|---|---|---|\n"
    for number in count():
        cells = (" ".join(random.choices(_WORDS, k=random.randint(1, 4))) for _ in range(3))
        yield f"| {number} | {' | '.join(cells)} |\n"


def cjk(random: Random) -> Iterator[str]:
    while True:
        clauses = ("".join(random.choices(_HAN, k=random.randint(5, 16))) for _ in range(random.randint(6, 14)))
        yield "，".join(clauses) + "。\n\n"


KINDS: dict[str, Callable[[Random], Iterator[str]]] = {
    "prose": prose,
    "code": code,
    "list": bullets,
    "table": table,
    "cjk": cjk,
}
TOKEN_CHARACTERS = {"cjk": 2}
_CHARACTERS_PER_TOKEN = 9


def sample(kind: str, tokens: int) -> str:
    """Return a text of one kind that holds at least so many tokens."""
    wanted = tokens * TOKEN_CHARACTERS.get(kind, _CHARACTERS_PER_TOKEN)
    parts: list[str] = []
    for part in KINDS[kind](Random(7)):
        parts.append(part)
        wanted -= len(part)
        if wanted < 0:
            break
    return "".join(parts)
