"""The lines of an answer: streamed or at once, the same; and no block drawn more often than it must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.parser_inline import ParserInline
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from quantchat.ui.transcript import body as body_module
from quantchat.ui.transcript.body import Body
from quantchat.ui.transcript.code import FRESH, Pen
from quantchat.ui.transcript.document import HELD_LINES, Document
from quantchat.ui.transcript.messages import MessageView
from quantchat.ui.transcript.painter import Painter
from quantchat.ui.transcript.palette import Palette
from quantchat.ui.transcript.render import Rendering
from quantchat.ui.transcript.wrap import _unit_spans, wrap

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
        "  - inner\n",
        "> - quoted\n",
        "   3) third\n",
        "- - -",
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
        "$$\n",
        "$$ x",
        "\\[ y",
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


def words(line: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in line)


def shown(text: str, width: int = 60) -> list[str]:
    return [words(line).rstrip() for line in _one_shot(text, Painter(width, PALETTE)).lines]


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


def test_finished_blocks_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    block = Rendering.block
    monkeypatch.setattr(
        Rendering,
        "block",
        lambda self, node, width: drawn.append(self._source.slice(node)) or block(self, node, width),
    )
    text = "".join(f"paragraph {number}\n\n" for number in range(50))
    body = Body(Painter(60, PALETTE))
    for end in range(0, len(text) + 1, 7):
        body.feed(text[:end])
    streamed = len(drawn)
    body.finish(text)
    assert len(drawn) - streamed <= 1
    assert all(drawn.count(f"paragraph {number}\n") <= 4 for number in range(40))
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines


def test_an_open_fence_colours_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured: list[str] = []
    line = Pen.line
    monkeypatch.setattr(Pen, "line", lambda self, text, state: coloured.append(text) or line(self, text, state))
    text = "```python\n" + "".join(f"x = {number}\n" for number in range(200))
    body = Body(Painter(60, PALETTE))
    for end in range(0, len(text) + 1, 4):
        body.feed(text[:end])
    body.feed(text)
    assert max(coloured.count(f"x = {number}") for number in range(100, 200)) <= 2
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines


LONG = {
    "paragraph": "a sentence with **bold** words, `code` and [a link](http://x/y) that costs $5. ",
    "paragraph with an open mark": "a sentence * with some ** stray [ marks _ and ` more. ",
    "ideographs": "量化后的模型把每个权重压缩到四位，因此读取显存的时间减少。",
    "verse": "a line of verse\n",
    "tight list": "- an item with *some* words\n",
    "loose list": "- an item\n\n  and more of it\n\n",
    "numbers": "1. an item with *some* words\n",
    "one item": "  more `words` in the same item\n\n",
    "nested list": "  - an inner item\n    1. innermost\n",
    "list in a quote": "> - an item in a quote\n",
    "quote": "> a line of a quotation\n>\n",
    "one word": "unbroken",
    "thai": "ภาษาไทยไม่เว้นวรรค",
    "table": "| cell | `code` | more |\n",
    "fence": 'print("x")  # a comment\n',
    "indented code": "    print('x')\n",
    "indented code with blank lines": "    print('x')\n    print('y')\n\n",
    "indented code in a quote": ">     print('x')\n",
    "fence in a list": '  print("x")\n',
    "table in a list": "  | cell | more |\n",
}
BEGINNINGS = {
    "table": "| a | b | c |\n|---|:-:|--:|\n",
    "fence": "```python\n",
    "fence in a list": "- code:\n\n  ```python\n",
    "table in a list": "- table:\n\n  | a | b |\n  |---|---|\n",
    "one item": "- begins\n\n",
    "nested list": "- outer\n",
}


@pytest.mark.parametrize("kind", LONG)
def test_text_far_above_the_end_is_not_read_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    parse = body_module.parse
    monkeypatch.setattr(body_module, "parse", lambda text, found: read.append(len(text)) or parse(text, found))
    text = BEGINNINGS.get(kind, "") + LONG[kind] * (30_000 // len(LONG[kind]))
    body = Body(Painter(60, PALETTE))
    for end in range(0, len(text), 40):
        body.feed(text[:end])
    assert max(read) < 3_000
    body.feed(text)
    streamed = [words(line) for line in body.lines]
    body.finish(text)
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines
    if kind != "paragraph with an open mark":
        assert streamed == [words(line) for line in body.lines]


def test_an_address_that_comes_last_reaches_the_links_before_it() -> None:
    text = "".join(f"- item {number} of [the guide]\n" for number in range(40)) + "\n[the guide]: http://x/guide\n"
    body = Body(Painter(60, PALETTE))
    for end in range(0, len(text) + 1, 11):
        body.feed(text[:end])
    assert "http://x/guide" not in words(body.lines[0])
    body.finish(text)
    assert words(body.lines[0]) == "• item 0 of the guide (http://x/guide)"
    assert body.lines == _one_shot(text, Painter(60, PALETTE)).lines


def test_lines_that_are_shown_together_are_held_together() -> None:
    """A screen of many short messages above a huge one had lines of its own taken away while it was drawn."""
    document = Document()
    document.set_format(60, PALETTE)
    short = [MessageView(str(number), "note", "words", "") for number in range(50)]
    document.load([*short, MessageView("last", "note", "row\n" * HELD_LINES, "")])
    shown = list(document.lines(0, 110))
    assert len(shown) == 110
    assert all(document.entries[place.entry].lines for place, _ in shown)


def test_lines_that_were_read_long_ago_are_let_go_and_come_back() -> None:
    document = Document()
    document.set_format(60, PALETTE)
    document.load(MessageView(str(number), "assistant", "words\n\n" * 20, "m") for number in range(200))
    first = [strip.text for _, strip in document.lines(0, 100)]
    heights = [document.size(number) for number in range(200)]
    assert sum(len(entry.lines) for entry in document.entries) <= HELD_LINES + max(heights)
    assert document.entries[0].lines == []
    assert [document.size(number) for number in range(200)] == heights
    assert [strip.text for _, strip in document.lines(0, 100)] == first


@pytest.mark.parametrize(
    ("begun", "seen"),
    [
        ("title\n-", ["title"]),
        ("title\n- x", ["title", "", "• x"]),
        ("title\n- x\n``", ["title", "", "• x"]),
        ("row\n|--|", ["row"]),
    ],
)
def test_marks_that_may_become_anything_wait_for_more(begun: str, seen: list[str]) -> None:
    body = Body(Painter(60, PALETTE))
    body.feed(begun)
    assert [words(line) for line in body.lines] == seen


def test_numbers_go_on_where_a_long_list_was_cut() -> None:
    text = "".join(f"1. step\n   - part {number}\n" for number in range(1, 121))
    body = Body(Painter(60, PALETTE))
    for end in range(0, len(text) + 1, 9):
        body.feed(text[:end])
    lines = [words(line).strip() for line in body.lines]
    assert [line for line in lines if line.endswith("step")] == [f"{number}. step" for number in range(1, 121)]


def test_comments_and_texts_keep_their_colour_over_several_lines() -> None:
    base = Style()
    for language, first, inside in [("c", "int a; /* one", "int b;"), ("python", 'x = """one', "return 1")]:
        pen = Pen(language, "github-dark", base)
        line, state = pen.line(first, FRESH)
        within, _ = pen.line(inside, state)
        alone, _ = pen.line(inside, FRESH)
        assert {segment.style for segment in within} <= {line[-1].style}
        assert within != alone
        assert words(within) == words(alone) == inside


@pytest.mark.parametrize(
    "maths",
    [
        "$$a*b*c$$",
        r"\( x_1 \)",
        r"\[ \sum_{i} a_i * b_i * c \]",
        "$x_1 + y_1$ and $z_1$",
        "\\[\na\n= b*c*d\n+ e\n\\]",
        "$$\nx_1\n- y\n$$",
        r"so $\{a\}$ is **it**".replace("**", ""),
    ],
)
def test_latex_is_shown_as_it_was_written(maths: str) -> None:
    assert shown(maths) == maths.split("\n")
    assert shown(f"- {maths}".replace("\n", "\n  "))[0].endswith(maths.split("\n")[0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("$5 and $10, *really*", ["$5 and $10, really"]),
        ("a $ b *c* $ d", ["a $ b c $ d"]),
        ("$$\nno end\n\n*x*", ["$$", "no end", "", "x"]),
        ("[docs](https://docs.python.org)", ["docs (https://docs.python.org)"]),
        ("[https://x.y](https://x.y/) <https://z.w>", ["https://x.y https://z.w"]),
        ("![a cat](cat.png)", ["[image: a cat] (cat.png)"]),
        ("- [ ] open\n- [x] done\n- [link](u)", ["• ☐ open", "• ☑ done", "• link (u)"]),
        ("9. nine\n10. ten", [" 9. nine", "10. ten"]),
        ("> a\n> > b\n\nc", ["│ a", "│ │ b", "", "c"]),
        ("- a\n- b\n\n- c", ["• a", "• b", "", "• c"]),
        ("one\ntwo\\\nthree  \nfour", ["one", "two", "three", "four"]),
        ("[x]: http://y\n\n[x] [^1]\n\n[^1]: note", ["x (http://y) [^1]", "", "[^1]: note"]),
        ("~~old~~ &amp; &copy;", ["old & ©"]),
        ("List<int> <br> <think>", ["List<int> <br> <think>"]),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |", ["a │ b", "──┼──────", "1 │ 2 │ 3"]),
        (
            "| l | c | r |\n|:--|:-:|--:|\n| long | long | long |",
            ["l    │  c   │    r", "─────┼──────┼─────", "long │ long │ long"],
        ),
        ("***", ["─" * 60]),
        ("```\n\n  x\n```", ["", "   x"]),
    ],
)
def test_constructs(source: str, expected: list[str]) -> None:
    assert shown(source) == expected


def test_a_table_too_wide_for_the_screen_keeps_every_word() -> None:
    heads = " | ".join(f"head{number}" for number in range(8))
    text = f"| {heads} |\n{'|---' * 8}|\n| {' | '.join(f'cell{number}' for number in range(8))} |"
    for width in (20, 30, 50, 80):
        seen = " ".join(shown(text, width))
        assert all(f"cell{number}" in seen and f"head{number}" in seen for number in range(8))


def test_cells_wrap_where_columns_are_narrow() -> None:
    text = "| name | what it does |\n|---|---|\n| a | it explains the whole matter in many words |"
    assert shown(text, 30) == [
        "name │ what it does",
        "─────┼────────────────────────",
        "a    │ it explains the whole",
        "     │ matter in many words",
    ]


@given(st.text("ab (.", max_size=60).map(str.strip), st.integers(1, 12))
def test_words_wrap_alike_with_and_without_wide_characters(text: str, width: int) -> None:
    ascii_lines = [words(line).rstrip() for line in wrap([Segment(text)], width)]
    assert ascii_lines == [text[start:end].rstrip() for start, end in _unit_spans(text, width)]


@settings(deadline=None)
@given(
    st.text(st.one_of(st.characters(exclude_categories=["C", "Z", "M"]), st.sampled_from(" é漢字か。「กो"))),
    st.integers(2, 30),
)
def test_wrapping_loses_nothing_and_fits(text: str, width: int) -> None:
    lines = [words(line) for line in wrap([Segment(text)], width)]
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("unit", ["[", "![", "[a](", "\\("])
def test_brackets_without_end_take_no_time_for_each_other(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ran wild held up the keys for seconds: the parser looked for the end of each bracket."""
    read: list[int] = []
    parse = ParserInline.parse
    monkeypatch.setattr(
        ParserInline, "parse", lambda self, text, *rest: read.append(len(text)) or parse(self, text, *rest)
    )
    text = unit * 10_000 + "\nlast"
    assert "".join(shown(text)) == text.replace("\n", "")
    assert not read


def test_ideographs_break_before_no_closing_mark() -> None:
    assert [words(line) for line in wrap([Segment("量化后的模型，更小。")], 12)] == ["量化后的模", "型，更小。"]


@pytest.mark.parametrize(
    "nesting", [">" * 60 + " x", "- " * 60 + "x", "[" * 300 + "x", "| a " * 60 + "|\n" + "|---" * 60 + "|", "*" * 500]
)
@pytest.mark.parametrize("width", [1, 5, 80])
def test_absurd_nesting_is_drawn_somehow(nesting: str, width: int) -> None:
    lines = _one_shot(nesting, Painter(width, PALETTE)).lines
    assert nesting.strip("[*-> |\n")[-1:] in "".join(map(words, lines))
    assert max(cell_len(words(line)) for line in lines) <= width
