"""Styled text cut into lines of at most so many cells."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len, split_graphemes
from rich.segment import Segment

Line = list[Segment]

_WIDE = r"\u2e80-\u312f\u3190-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\U00020000-\U0003ffff"
_OPENING = r"「『（【〈《〔｛［〖“‘"
_CLOSING = r"\u3099\u309a、。，．・：；？！ー々…‥％」』）】〉》〕｝］〗”’ぁぃぅぇぉっゃゅょァィゥェォッャュョ!?,.:;)\]}"
# Between ideographs a line may break anywhere, except before closing and after opening marks; elsewhere at spaces.
_UNIT = re.compile(rf"[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}]+)[{_CLOSING}]*\s*|\s+")


def wrap(runs: Line, width: int) -> list[Line]:
    """Break between words; a word longer than a line is cut."""
    text = "".join(run.text for run in runs)
    return _cut(runs, list(_spans(text, max(1, width))))


def fold(runs: Line, width: int) -> list[Line]:
    """Break at exactly `width` cells, so that every space stays."""
    text = "".join(run.text for run in runs)
    return _cut(runs, list(_chops(text, 0, len(text), max(1, width))))


def width_of(runs: Line) -> int:
    return sum(cell_len(run.text) for run in runs)


def _spans(text: str, width: int) -> Iterator[tuple[int, int]]:
    if text.isascii():
        return _ascii_spans(text, width)
    if len(text) * 2 <= width or cell_len(text) <= width:
        return iter([(0, len(text))])
    return _unit_spans(text, width)


def _ascii_spans(text: str, width: int) -> Iterator[tuple[int, int]]:
    start, size = 0, len(text)
    while size - start > width:
        space = text.rfind(" ", start, start + width + 1)
        if space < 0 or not text[start:space].strip():
            space = start + width
        end = space
        while end > start and text[end - 1] == " ":
            end -= 1
        yield start, end
        start = space
        while start < size and text[start] == " ":
            start += 1
    if start < size or not size:
        yield start, size


def _unit_spans(text: str, width: int) -> Iterator[tuple[int, int]]:
    start, end, column = 0, 0, 0
    for unit in _UNIT.finditer(text):
        word = unit[0].rstrip()
        cells = cell_len(word)
        if column + cells > width and text[start:end]:
            yield start, end
            start, column = unit.start(), 0
        if column + cells > width:
            *full, (start, _) = _chops(text, start, unit.start() + len(word), width)
            yield from full
            column = cell_len(text[start : unit.start()])
            cells = cell_len(text[max(start, unit.start()) : unit.start() + len(word)])
        column += cells + len(unit[0]) - len(word)
        end = unit.start() + len(word) if word else end
    yield start, max(start, end) if column > width else len(text)


def _chops(text: str, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    part = text[start:end]
    if part.isascii():
        for offset in range(start, end, width):
            yield offset, min(end, offset + width)
        if start == end:
            yield start, end
        return
    begun, column = start, 0
    for first, _, cells in split_graphemes(part)[0]:
        if column + cells > width and column:
            yield begun, start + first
            begun, column = start + first, 0
        column += cells
    yield begun, end


def _cut(runs: Line, spans: list[tuple[int, int]]) -> list[Line]:
    if len(runs) == 1:
        ((text, style, _),) = runs
        return [[Segment(text[start:end], style)] if end > start else [] for start, end in spans]
    lines: list[Line] = []
    number, offset = 0, 0
    for start, end in spans:
        line: Line = []
        while number < len(runs):
            text, style, _ = runs[number]
            part = text[max(0, start - offset) : max(0, end - offset)]
            if part:
                line.append(Segment(part, style))
            if offset + len(text) > end:
                break
            offset += len(text)
            number += 1
        lines.append(line)
    return lines
