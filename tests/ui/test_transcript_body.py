"""The lines of an answer: streamed or at once, the same; and no block drawn more often than it must be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style

from quantchat.ui.transcript.body import Body
from quantchat.ui.transcript.document import Document
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.painter import Painter
from quantchat.ui.transcript.palette import Palette

PALETTE = Palette(
    **{name: Style() for name in ("base", "user", "user_bar", "label")},
    dim=Style(dim=True),
    error=Style(color="red"),
    heading=Style(bold=True),
    code=Style(bgcolor="black"),
    link=Style(underline=True),
    code_theme="github-dark",
)


def answer(text: str, *, streaming: bool = False) -> MessageView:
    return MessageView("1", "assistant", text, "SmolLM2", streaming=streaming)


PIECES = [
    *(
        "# Title\n",
        "Title\n===\n",
        "words ",
        "more words\n",
        "\n",
        "\n\n",
        "- item\n",
        "  continued\n",
        "1. first\n",
        "    code\n",
    ),
    *(
        "```python\n",
        "```\n",
        "~~~\n",
        "def f():\n",
        '"""doc\n',
        "| a | b |\n",
        "|---|---|\n",
        "| 1 | 2 |\n",
        "> quote\n",
        "---\n",
    ),
    *(
        "- - -",
        "*",
        "**bold**",
        "`code`",
        "<think>",
        "List<int>",
        "[x]",
        "[x]: http://y\n",
        "[x](y)",
        "![i](u)",
        "\t",
        " ",
        "漢字",
    ),
]
MARKDOWN = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


def _chunks(text: str, cuts: list[int]) -> Iterator[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        yield text[start:end]


def _one_shot(text: str, painter: Painter) -> Body:
    body = Body(painter)
    body.finish(text)
    return body


@settings(deadline=None, max_examples=200)
@given(MARKDOWN, st.lists(st.integers(0, 400), max_size=30), st.sampled_from([1, 12, 60]))
def test_a_streamed_answer_ends_as_it_would_at_once(text: str, cuts: list[int], width: int) -> None:
    document, expected = Document(), Document()
    for column in (document, expected):
        column.set_format(width + 2, PALETTE)
    document.append(answer("", streaming=True))
    for chunk in _chunks(text, cuts):
        document.entries[0].extend(chunk)
        document.paint(0)
    document.entries[0].replace(answer(text))
    document.paint(0)
    expected.append(answer(text))
    expected.paint(0)
    assert document.entries[0].lines == expected.entries[0].lines


def test_finished_blocks_are_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[str] = []
    paint = Painter.block
    monkeypatch.setattr(Painter, "block", lambda self, block: painted.append(block.source) or paint(self, block))
    text = "".join(f"paragraph {number}\n\n" for number in range(50))
    body = Body(Painter(60, PALETTE))
    for end in range(len(text) + 1):
        body.feed(text[:end])
    streamed = len(painted)
    body.finish(text)
    assert len(painted) - streamed <= 1
    assert all(painted.count(f"paragraph {number}\n") <= 4 for number in range(40))
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines


def test_an_open_fence_colours_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter(60, PALETTE)
    coloured: list[str] = []
    code = Painter.code
    monkeypatch.setattr(
        Painter, "code", lambda self, lines, language: coloured.append(lines) or code(self, lines, language)
    )
    text = "```python\n" + "".join(f"x = {number}\n" for number in range(200))
    body = Body(painter)
    for end in range(0, len(text) + 1, 4):
        body.feed(text[:end])
    body.feed(text)
    assert all(lines.count("\n") <= 1 for lines in coloured)
    assert coloured.count("x = 1") <= 3
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines


@pytest.mark.parametrize(
    "nesting", [">" * 60 + " x", "- " * 60 + "x", "[" * 300 + "x", "| a " * 60 + "|\n" + "|---" * 60 + "|", "*" * 500]
)
@pytest.mark.parametrize("width", [1, 5, 80])
def test_absurd_nesting_is_drawn_somehow(nesting: str, width: int) -> None:
    lines = _one_shot(nesting, Painter(width, PALETTE)).lines
    assert nesting.strip("[*-> |\n")[-1:] in "".join(line.text for line in lines)
    assert max(line.cell_length for line in lines) <= width
