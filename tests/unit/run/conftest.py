"""`quantchat run` on pipes, over the scripted engine."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from unittest.mock import patch

import pytest

from quantchat.cli import linerun, main
from quantchat.cli.signals import Interrupted, Signals
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


class Deaf(Signals):
    """Leaves the signals of the test run alone; `test_signals` sends them to processes."""

    def __enter__(self) -> Signals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._woken.close()
        self._wakes.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self._came:
            raise Interrupted(self._came.popleft())
        yield


@contextmanager
def descriptor(number: int, file: int) -> Iterator[None]:
    """Put a file in the place of a standard descriptor."""
    kept = os.dup(number)
    os.dup2(file, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def run_here(arguments: Sequence[str], env: Mapping[str, str], stdin: str) -> tuple[int, str, str]:
    """Run the program in this process, on files, as a process of its own would; exit status, stdout, stderr."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin.encode())
        files[0].seek(0)
        with ExitStack() as place:
            for number, (name, file) in enumerate(zip(("stdin", "stdout", "stderr"), files, strict=True)):
                place.enter_context(descriptor(number, file.fileno()))
                stream = place.enter_context(open(number, "w" if number else "r", encoding="utf-8", closefd=False))
                place.enter_context(patch.object(sys, name, stream))
            place.enter_context(patch.dict(os.environ, env, clear=True))
            place.enter_context(patch.object(linerun, "Signals", Deaf))
            with pytest.raises(SystemExit) as ended:
                main.main(list(arguments), prog_name="quantchat")
        for file in files[1:]:
            file.seek(0)
        return int(ended.value.code or 0), files[1].read().decode(), files[2].read().decode()


class RunShell(Shell):
    """Runs `quantchat run alpha` with histories in `folder`; `start` as a process, `run` in this one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "run", "alpha", answers=ANSWERS, load={"seconds": 0})
        make_gptq(self.models / "alpha-GPTQ")

    def run(self, *arguments: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        return self.run_with("alpha", *arguments, stdin=stdin, **env)

    def run_with(self, model: str, *arguments: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        """Run it with another model."""
        words = ("--models-dir", str(self.models), "run", model, *arguments)
        return run_here(words, self.environment | env, stdin)

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
