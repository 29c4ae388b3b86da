"""A token of the source, found where Markdown shows it."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from quantchat.ui.transcript.entry import BAR
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.pointing import Pointer
from quantchat.ui.widgets.column import Answers

TABLE = "| name | size |\n|---|---|\n| alpha | 3 GiB |\n| beta | 5 GiB |\n"


class AnswersApp(App[None]):
    CSS = "Screen { layers: base; } Answers { height: 100%; }"

    def compose(self) -> ComposeResult:
        yield Answers(classes="answers")


async def places(text: str, start: int, end: int, *, size: tuple[int, int] = (60, 30)) -> list[tuple[int, int, str]]:
    """Line, column and text of what is marked."""
    app = AnswersApp()
    async with app.run_test(size=size) as pilot:
        answers = app.query_one(Answers)
        answers.show([MessageView(id="a", role="assistant", text=text, label="")])
        await pilot.pause()
        entry = answers._document.entries[0]
        answers._document.paint(0)
        spans = Pointer("answer", start, end).spans(entry)
        return [(span.line, span.start - BAR, entry.lines[span.line].text[span.start : span.end]) for span in spans]


async def marked(text: str, start: int, end: int, *, size: tuple[int, int] = (60, 30)) -> list[str]:
    return [shown for _, _, shown in await places(text, start, end, size=size)]


@pytest.mark.parametrize(
    ("text", "token", "shown"),
    [
        ("The capital is Paris, and Paris is large.", " Paris,", ["Paris,"]),
        ("Some **bold words** here, some _more_ words there.", " words there", ["words there"]),
        ("- one\n- two\n- three two\n", " two\n", ["two"]),
        ("Look:\n\n```python\nfor x in y:\n    print(x)\n```\nDone.", "    print", ["print"]),
        (TABLE, " 5", ["5"]),
        ("# Title of it\n\nText of it.", " of it.", ["of it."]),
        ("A [link](https://example.org/of) of words", " of words", ["of words"]),
        ("It is **Paris**, **Paris**.", "**Paris**.", ["Paris."]),
        ("日本語のテキストです", "テキスト", ["テキスト"]),
    ],
)
async def test_a_token_is_found_where_it_is_shown(text: str, token: str, shown: list[str]) -> None:
    start = text.rindex(token)
    assert await marked(text, start, start + len(token)) == shown


async def test_the_right_one_of_many_is_marked() -> None:
    text = "a b a b a b a b c"
    for place in (1, 5, 9, 13):
        assert await places(text, place, place + 2) == [(0, place + 1, "b")]


async def test_a_token_that_is_wrapped_is_marked_on_both_lines() -> None:
    text = "word " * 5 + "incomprehensibilities"
    pieces = await marked(text, 25, len(text), size=(16, 30))
    assert "".join(pieces) == "incomprehensibilities"
    assert len(pieces) > 1


async def test_markup_alone_stands_for_the_word_behind_it() -> None:
    text = "Yes.\n\n**Surely** not."
    assert await marked(text, 4, 8) == ["Surely"]


async def test_control_characters_do_not_move_the_mark() -> None:
    text = "A\x1b\x1b\x1b word and a word"
    assert await marked(text, len(text) - 5, len(text)) == ["word"]


async def test_what_is_not_there_is_not_marked() -> None:
    assert await marked("Words.", 6, 6) == []
    assert await marked("", 0, 0) == []
