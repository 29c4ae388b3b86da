"""Answers of the tiny file, and when two of them are the same."""

from __future__ import annotations

from typing import NamedTuple

TIE = 0.05
"""Two logits this close are a tie: passes over other numbers of tokens round otherwise, and may choose the other."""


class Answer(NamedTuple):
    """An answer, a letter for each token, and by how much each was better than the second best."""

    text: str
    leads: list[float]

    def __eq__(self, other: object) -> bool:
        """Whether it is the same as a text, up to a tie."""
        text = other.text if isinstance(other, Answer) else other
        pairs = zip(self.text, text, self.leads, strict=False)
        parting = next((lead for one, another, lead in pairs if one != another), None)
        return len(text) == len(self.text) if parting is None else parting < TIE

    __hash__ = None
