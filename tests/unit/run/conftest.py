"""`quantchat run` on pipes, over the scripted engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripted_shell import Shell
from unit.catalog.model_folders import make_gptq

ANSWERS: list[dict[str, object]] = [
    {"match": "slow", "text": "word " * 1000, "tokens_per_second": 200},
    {"match": "pondered", "text": "The answer.", "thinking": "First this.\nThen that.", "tokens_per_second": 0},
    {"match": "hostile", "text": "a\x1b[31mred\x1b]0;title\x07\tb\r\nc", "token_characters": 1, "tokens_per_second": 0},
    {"match": "refused", "text": "", "fail": {"code": "sampling", "title": "Refused", "detail": "", "remedy": ""}},
    {"match": "halfway", "text": "Only half", "fail": {"code": "x", "title": "It broke", "detail": "", "remedy": ""}},
    {"match": "crash", "text": "one two three four", "crash_after_tokens": 2, "tokens_per_second": 0},
    {"tokens_per_second": 0},
]


class RunShell(Shell):
    """Runs `quantchat run alpha` with histories in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "run", "alpha", answers=ANSWERS)
        make_gptq(self.models / "alpha-GPTQ")

    def file(self, *said: tuple[str, str], name: str = "h.json") -> str:
        """The path of a history, which is written if anything was said."""
        path = self.folder / name
        if said:
            path.write_text(json.dumps([{"role": role, "content": content} for role, content in said]))
        return str(path)

    def said(self, name: str = "h.json") -> list[tuple[str, str]]:
        """What a history on disk holds."""
        return [(row["role"], row["content"]) for row in json.loads((self.folder / name).read_bytes())]


@pytest.fixture
def shell(tmp_path: Path) -> RunShell:
    return RunShell(tmp_path)
