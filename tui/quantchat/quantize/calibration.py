"""The text that a quantizer watches the model read, as token ids.

The bundled set, `data/calibration.jsonl`, was written for quantchat and has its licence (MIT).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantchat.errors import JobError

BUNDLED = Path(__file__).with_name("data") / "calibration.jsonl"
SHORTEST = 10
"""Tokens; GPTQModel drops samples that are shorter."""

Conversation = list[dict[str, str]]


def conversations(path: Path | None = None) -> list[Conversation]:
    """Read `{"messages": [...]}` lines; None reads the bundled set.

    Raises:
        JobError: if the file cannot be read or a line is not such an object.
    """
    source = path or BUNDLED
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError("The calibration file cannot be read", f"{source}: {error}") from error
    return [_conversation(source, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _conversation(source: Path, number: int, line: str) -> Conversation:
    try:
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in json.loads(line)["messages"]]
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            "The calibration file is not in order",
            f"line {number} of {source} is not a JSON object with `messages`",
            'Write one {"messages": [{"role": "user", "content": "..."}]} per line',
        ) from error


def token_ids(tokenizer: Any, path: Path | None = None) -> list[list[int]]:
    """Render each conversation through the model's own chat template and tokenize it.

    Raises:
        JobError: if nothing long enough is left.
    """
    rows = [_ids(tokenizer, conversation) for conversation in conversations(path)]
    rows = [row for row in rows if len(row) >= SHORTEST]
    if not rows:
        raise JobError("The calibration file holds no usable text", f"no sample has {SHORTEST} tokens or more")
    return rows


def _ids(tokenizer: Any, conversation: Conversation) -> list[int]:
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer("\n\n".join(message["content"] for message in conversation))["input_ids"])
