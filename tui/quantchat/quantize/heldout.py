"""The text on which models are measured, as token ids in windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantchat.domain.memory import MIB, format_bytes
from quantchat.errors import JobError
from quantchat.paths import held_out_file

MOST_BYTES = 64 * MIB
"""Of a larger file only the beginning can be read, and only if the number of tokens is limited."""
BYTES_PER_TOKEN = 32
"""More than a token of any text stands for on average."""
SHORTEST = 2


def read_text(path: str | None, tokens: int) -> str:
    """Read a text file; None is the bundled one. With a limit of tokens only as much as holds so many.

    Raises:
        JobError: if it cannot be read, is no text or too long.
    """
    source = Path(path) if path else held_out_file()
    limit = min(MOST_BYTES, BYTES_PER_TOKEN * tokens + MIB) if tokens else MOST_BYTES
    try:
        with source.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise JobError("The text cannot be read", f"{source}: {error.strerror}", "Check the path") from error
    if len(data) > limit and not tokens:
        detail = f"{source} has more than {format_bytes(MOST_BYTES)}"
        raise JobError("The text is too long", detail, "Limit the number of tokens")
    return _decoded(data[:limit], source, cut=len(data) > limit)


def _decoded(data: bytes, source: Path, *, cut: bool) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The limit may fall into the middle of a letter.
        if cut and error.start > len(data) - 4:
            return data[: error.start].decode("utf-8-sig")
        detail = f"byte {error.start:,} of {source} is not UTF-8"
        raise JobError("The text cannot be read", detail, "Choose a text file, or convert it to UTF-8") from error


def prefix_of(tokenizer: Any) -> list[int]:
    """Return the tokens that the tokenizer puts before every text, such as the one that begins a sequence."""
    whole = list(tokenizer("a")["input_ids"])
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    places = range(len(whole) - len(plain) + 1)
    return whole[: next((place for place in places if whole[place : place + len(plain)] == plain), 0)]


def pieces_of(tokenizer: Any, text: str, window: int, tokens: int = 0) -> list[list[int]]:
    """Cut a text into windows that do not overlap, each behind the tokenizer's prefix; what is too short is left out.

    Args:
        window: Tokens per window, the prefix included.
        tokens: Tokens of the text that are taken; 0 for all.

    Raises:
        JobError: if nothing is left to predict.
    """
    prefix = prefix_of(tokenizer)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = ids[:tokens] if tokens else ids
    step = window - len(prefix)
    if step < 1:
        raise JobError("The window is too short", f"it has {window} tokens", "Choose a longer one, such as 512")
    pieces = [prefix + ids[start : start + step] for start in range(0, len(ids), step)]
    pieces = [piece for piece in pieces if len(piece) >= max(SHORTEST, len(prefix) + 1)]
    if not pieces:
        raise JobError("The text is too short to measure", "it has fewer than two tokens", "Choose a longer one")
    return pieces
