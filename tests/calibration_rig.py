"""Reading calibration files as a job does, without a tokenizer."""

from __future__ import annotations

from pathlib import Path

from quantchat.quantize.examples import Examples
from quantchat.quantize.textfile import opened
from quantchat.quantize.watch import Watch

QUIET = Watch(lambda _event: None, lambda: False)


def conversations(path: Path) -> list[list[dict[str, str]]]:
    """Read all conversations of a JSONL file as roles and contents.

    Raises:
        JobError: if the file cannot be read or a line is not in order.
    """
    with opened(path) as file:
        examples = Examples(file, path)
        examples.check(QUIET)
        return [
            [{"role": message.role, "content": message.content} for message in example.messages]
            for example in examples.taken(len(examples))
        ]
