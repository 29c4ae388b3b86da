"""Tags as they are typed, and as they are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.tags import LONGEST, MOST, changed_tags, read_tags


@pytest.mark.parametrize(
    ("typed", "tags"),
    [
        ("", []),
        ("work home", ["work", "home"]),
        (" #work,#home ,, x", ["work", "home", "x"]),
        ("Work work WORK", ["Work"]),
        ("日本 ÄRGER ärger", ["日本", "ÄRGER"]),
        ("# ##", []),
        ("a\x1b[31mb\u202e", ["a[31mb"]),
    ],
)
def test_tags_stand_between_spaces_or_commas(typed: str, tags: list[str]) -> None:
    assert read_tags(typed) == tags


@pytest.mark.parametrize(
    ("typed", "tags"),
    [("new", ["work", "old", "new"]), ("-OLD", ["work"]), ("-#old new", ["work", "new"]), ("WORK -x", ["work", "old"])],
)
def test_words_are_added_and_taken_away(typed: str, tags: list[str]) -> None:
    assert changed_tags(["work", "old"], typed) == tags


@given(st.text(max_size=400))
def test_tags_are_short_few_and_stay_what_they_are(typed: str) -> None:
    tags = read_tags(typed)
    assert len(tags) <= MOST
    assert all(0 < len(tag) <= LONGEST and not any(char.isspace() for char in tag) for tag in tags)
    assert read_tags(" ".join(f"#{tag}" for tag in tags)) == tags
