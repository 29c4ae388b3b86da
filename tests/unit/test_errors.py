"""Errors as sentences."""

from __future__ import annotations

import pytest

from quantchat.errors import ErrorReport


@pytest.mark.parametrize(
    ("title", "detail", "remedy", "sentence"),
    [
        ("It is gated", "its owner wants you to ask", "Ask.", "It is gated: its owner wants you to ask. Ask."),
        ("It is gated", "Its owner wants you to ask.", "", "It is gated. Its owner wants you to ask."),
        ("It failed", "model.safetensors is cut off", "", "It failed: model.safetensors is cut off."),
        ("It failed.", "", "Try again", "It failed. Try again."),
        ("It failed", "", "", "It failed."),
        ("Which one?", '"x" is none', "Say it", 'Which one? "x" is none. Say it.'),
        ("Which one?", "none was named", "", "Which one? none was named."),
        ("Which one?", "", "Say it", "Which one? Say it."),
    ],
)
def test_a_report_reads_as_sentences(title: str, detail: str, remedy: str, sentence: str) -> None:
    assert ErrorReport(code="x", title=title, detail=detail, remedy=remedy).sentence() == sentence
