"""The calibration set and the held-out text are our own, varied and apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from quantchat.errors import JobError
from quantchat.quantize import calibration
from quantchat.quantize.perplexity import HELD_OUT


def test_the_bundled_set_is_large_and_well_formed() -> None:
    rows = calibration.conversations()
    assert len(rows) >= 96
    assert len({json.dumps(row) for row in rows}) == len(rows)
    for row in rows:
        roles = [message["role"] for message in row if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in row)


@pytest.mark.parametrize("mark", ["```python", "```sql", "¿", "œ", "ß", "è", "ã", "Dear", "1. ", "| ", "Subject:"])
def test_the_bundled_set_is_varied(mark: str) -> None:
    assert any(mark in message["content"] for row in calibration.conversations() for message in row)


def test_no_sentence_of_the_held_out_text_is_in_the_calibration_set() -> None:
    seen = calibration.BUNDLED.read_text(encoding="utf-8")
    held_out = HELD_OUT.read_text(encoding="utf-8")
    sentences = [sentence.strip() for sentence in re.split(r"[.!?]\s", held_out) if len(sentence) > 20]
    assert len(sentences) > 40
    assert [sentence for sentence in sentences if sentence in seen] == []


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": 3}', '{"messages": [{"role": "user"}]}'])
def test_a_line_that_is_not_a_conversation_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}\n' + line + "\n")
    with pytest.raises(JobError, match="line 2"):
        calibration.conversations(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read"):
        calibration.conversations(tmp_path / "none.jsonl")
