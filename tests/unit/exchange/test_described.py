"""The page about formats says what the table of formats says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.cli.sessions import FORMAT_NAMES
from quantchat.store.exchange.formats import FORMATS, Format

PAGE = Path(__file__).resolve().parents[3] / "docs" / "exchange.md"


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_the_page_names_what_each_format_cannot_hold(kind: Format) -> None:
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{kind.name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    yes = {True: "yes", False: "no"}
    assert cells[1] == f"`{kind.suffix}`"
    assert cells[3:] == [yes[kind.brackets is not None], yes[kind.readable], ", ".join(kind.lacks())]


def test_the_command_line_knows_all_formats() -> None:
    assert tuple(kind.name for kind in FORMATS) == FORMAT_NAMES
