"""Whole answers, as models write them: drawn in full, within the width, the same when streamed, and as Rich draws them.

Each way in which our lines differ from Rich's is named in `DIFFERENCES` with its reason; anything else fails.
"""

from __future__ import annotations

import html
import io
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown

from quantchat.domain.text import clean
from quantchat.ui.transcript.body import Body
from quantchat.ui.transcript.painter import Painter
from ui.test_transcript_body import PALETTE

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.md"))
WIDE = 2_000

every_answer = pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)


def read(path: Path) -> str:
    return clean(path.read_text(encoding="utf-8"))


def finished(text: str, width: int) -> Body:
    body = Body(Painter(width, PALETTE))
    body.finish(text)
    return body


def texts(body: Body) -> list[str]:
    return ["".join(segment.text for segment in line) for line in body.lines]


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 60


# Width, streaming


@every_answer
@pytest.mark.parametrize("width", [4, 20, 40, 78, 120])
def test_no_line_is_wider_than_the_screen(path: Path, width: int) -> None:
    assert max(map(cell_len, texts(finished(read(path), width)))) <= width


@every_answer
@pytest.mark.parametrize("width", [30, 78])
def test_a_streamed_answer_ends_as_it_would_at_once(path: Path, width: int) -> None:
    text = read(path)
    chunks = random.Random(path.stem)
    body, end = Body(Painter(width, PALETTE)), 0
    while end < len(text):
        end += chunks.randint(1, 30)
        body.feed(text[:end])
    body.feed(text)
    streamed = texts(body)
    body.finish(text)
    once = finished(text, width)
    assert body.lines == once.lines
    # Only links whose addresses come later, and marks at the very end, may change when the answer is complete.
    changed = sum(line not in streamed for line in texts(once))
    assert changed <= (3 if re.search(r"^\[[^^\]]+\]: ", text, re.MULTILINE) else 1)


# Nothing is lost


@every_answer
def test_every_letter_is_shown_in_order(path: Path) -> None:
    text = read(path)
    shown = iter(letters("\n".join(texts(finished(text, WIDE)))))
    missing = [letter for letter in letters(visible(text)) if letter not in shown]
    assert missing == []


@every_answer
def test_lines_of_code_keep_their_spaces(path: Path) -> None:
    text = read(path)
    lines = [line.rstrip() for line in texts(finished(text, WIDE))]
    codes = [token.content for token in plain_parser().parse(text) if token.type in ("fence", "code_block")]
    for line in (line.rstrip() for code in codes for line in code.split("\n")):
        assert any(shown.endswith(f" {line}") for shown in lines) or not line


@every_answer
@pytest.mark.parametrize("width", [24, 60])
def test_narrow_lines_say_what_wide_lines_say(path: Path, width: int) -> None:
    """But for tables, whose cells are laid out anew."""
    text = "\n".join(line for line in read(path).split("\n") if "|" not in line and not re.match(r" *-?---", line))
    narrow, wide = (letters("".join(texts(finished(text, size)))) for size in (width, WIDE))
    assert narrow == wide


@every_answer
@pytest.mark.parametrize("width", [24, 60])
def test_tables_lose_no_letter_on_narrow_screens(path: Path, width: int) -> None:
    narrow, wide = (sorted(letters("".join(texts(finished(read(path), size))))) for size in (width, WIDE))
    remaining = iter(narrow)
    assert all(letter in remaining for letter in wide)


def letters(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char)[0] in "LN")


def visible(text: str) -> str:
    """The source without what no reader is meant to see: names of languages, titles and labels of links."""
    text = re.sub(r"^(\s*(?:> ?|[-*+] |\d+\. )*(?:`{3,}|~{3,}))[^`\n]*$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"^\[[^^\]]+\]: .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"(\]\([^\s)]+) \"[^\"]*\"\)", r"\1)", text)
    text = re.sub(r"\]\[[^\]^]*\]", "]", text) if "[guide]" in text else text
    text = re.sub(r"^(\s*(?:[-*+]|\d+\.)) \[x\] ", r"\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"\[(https?://[^\]]*)\]\(\1\)", r"\1", text)
    return html.unescape(text)


# Beside Rich


@dataclass(frozen=True)
class Difference:
    """A way in which lines may differ, and how to undo it in our lines or in Rich's."""

    name: str
    reason: str
    ours: Callable[[list[str], str], list[str]] = lambda lines, _: lines
    rich: Callable[[list[str], str], list[str]] = lambda lines, _: lines


def each(pattern: str, by: str = "") -> Callable[[list[str], str], list[str]]:
    """Replace a pattern in each line; lines of which nothing is left go."""
    replaced = re.compile(pattern)
    return lambda lines, _: [line for line in (squeezed(replaced.sub(by, line)) for line in lines) if line]


def squeezed(line: str) -> str:
    return " ".join(line.split())


Take = Callable[[str, str], str]


def without(found: Callable[[str], list[str]], take: Take) -> Callable[[list[str], str], list[str]]:
    """Take what a function finds in the source away from each line."""

    def taken(lines: list[str], text: str) -> list[str]:
        for words in filter(None, map(squeezed, found(text))):
            lines = [squeezed(take(line, words)) for line in lines]
        return [line for line in lines if line]

    return taken


def anywhere(line: str, words: str) -> str:
    return line.replace(words, "")


def whole(line: str, words: str) -> str:
    return "" if line == words else line


@cache
def plain_parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["strikethrough", "table"])


def html_tags(text: str) -> list[str]:
    tokens = [child for token in plain_parser().parse(text) for child in token.children or ()]
    return [token.content for token in tokens if token.type == "html_inline"]


def html_blocks(text: str) -> list[str]:
    tokens = plain_parser().parse(text)
    return [line for token in tokens if token.type == "html_block" for line in token.content.split("\n")]


def surplus_cells(text: str) -> list[str]:
    cells, columns = [], 0
    for line in text.split("\n"):
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        columns = (columns or len(row)) if "|" in line else 0
        cells += [f"│ {cell}" for cell in row[columns:]]
    return cells


def joined(lines: list[str], _text: str) -> list[str]:
    return [squeezed(" ".join(lines))] if lines else []


def unmarked(lines: list[str], text: str) -> list[str]:
    if not re.search(r"\$|\\[(\[]", text):
        return lines
    return [re.sub(r"[\\*_ ]", "", line) for line in joined(lines, text)]


DIFFERENCES = [
    Difference("quotes", "a thin bar before each line instead of a thick one", each(r"^(?:│ ?)+"), each(r"^(?:▌ ?)+")),
    Difference(
        "rules", "rules and the lines below heads are drawn otherwise", each(r"^[─┼]+$"), each(r"^(?:─+|-{9,})$")
    ),
    Difference(
        "surplus cells", "cells beyond the last column are shown", ours=without(surplus_cells, str.removesuffix)
    ),
    Difference("columns", "columns stand between bars", ours=each(r" ?│ ?", " ")),
    Difference("numbers", "a number keeps its dot or parenthesis", ours=each(r"^([0-9]+)[.)](?= |$)", r"\1")),
    Difference("empty items", "an item without words shows its marker", ours=each("^•$")),
    Difference("boxes", "tasks show boxes", ours=each("☐", "[ ]")),
    Difference("ticked boxes", "tasks show ticked boxes", ours=each("☑", "[x]")),
    Difference("images", "an image shows its address", each(r"\[image: ([^\]]*)\] \([^)]*\)", r"\1"), each("🌆 ?")),
    Difference("bare addresses", "an address is not shown twice", rich=each(r"(\S+) \((?:mailto:)?\1\)", r"\1")),
    Difference("addresses", "an address is shown as it was written", rich=lambda lines, _: [*map(unquote, lines)]),
    Difference("html blocks", "html is text: models write `<think>` and mean it", ours=without(html_blocks, whole)),
    Difference("html", "html is text: `List<int>` must keep its brackets", ours=without(html_tags, anywhere)),
    Difference("line ends", "lines end where the source's lines end", joined, joined),
    Difference("LaTeX", "formulas are shown as they were written", unmarked, unmarked),
]


def rich_lines(text: str) -> list[str]:
    console = Console(file=io.StringIO(), width=WIDE, color_system=None, legacy_windows=False)
    rendered = console.render_lines(Markdown(text, hyperlinks=False), pad=False)
    return contents("".join(segment.text for segment in line) for line in rendered)


def contents(lines: Iterator[str]) -> list[str]:
    return [line for line in map(squeezed, lines) if line]


def hunks(ours: list[str], rich: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for tag, a, b, c, d in SequenceMatcher(None, ours, rich, autojunk=False).get_opcodes():
        if tag != "equal":
            yield ours[a:b], rich[c:d]


def needed(ours: list[str], rich: list[str], text: str) -> list[str] | None:
    """Names of the differences that explain why two groups of lines are unlike, or None."""
    names = []
    for difference in DIFFERENCES:
        if ours == rich:
            break
        undone = difference.ours(ours, text), difference.rich(rich, text)
        if undone != (ours, rich):
            names.append(difference.name)
            ours, rich = undone
    return names if ours == rich else None


def explained(lines: list[str], text: str) -> list[str] | None:
    """Names of all differences between our lines and Rich's, or None if there is one without a name."""
    ours, rich = contents(iter(lines)), rich_lines(text)
    names: list[str] = []
    for pair in hunks(ours, rich):
        found = needed(*pair, text)
        if found is None:
            return needed(ours, rich, text)
        names += found
    return names


@every_answer
def test_lines_are_those_of_rich(path: Path) -> None:
    text = read(path)
    ours = texts(finished(text, WIDE))
    if explained(ours, text) is None:
        assert ours == rich_lines(text)


@every_answer
def test_a_lost_word_would_be_noticed(path: Path) -> None:
    text = read(path)
    ours = texts(finished(text, WIDE))
    chosen = random.Random(path.stem).choice([n for n, line in enumerate(ours) if letters(line)])
    word = re.search(r"\w+", ours[chosen])
    assert word is not None
    shorter = ours[chosen][: word.start()] + ours[chosen][word.end() :]
    assert explained([*ours[:chosen], shorter, *ours[chosen + 1 :]], text) is None


def test_each_difference_occurs() -> None:
    names: set[str] = set()
    for path in CORPUS:
        names |= {*(explained(texts(finished(read(path), WIDE)), read(path)) or ())}
    assert names == {difference.name for difference in DIFFERENCES}
