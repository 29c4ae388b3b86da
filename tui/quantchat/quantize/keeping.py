"""What a quantized folder takes over from its source, byte for byte."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator
from pathlib import Path

TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "*.model",
    "chat_template*",
)
OTHERS = ("generation_config.json", "*processor_config.json", "LICENSE*", "NOTICE*")


def keep_files(source: Path, folder: Path) -> None:
    """Put the source's own tokenizer, chat template and defaults in place of what the libraries have rewritten.

    What they have added to those is removed: a template in two places, or a tokenizer in two forms, might differ.
    """
    kept = {path.name for path in matching(source, TOKENIZER)}
    if kept:
        for path in list(matching(folder, TOKENIZER)):
            path.unlink()
    for path in matching(source, TOKENIZER + OTHERS):
        shutil.copyfile(path, folder / path.name)


def matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of a folder whose names match one of the patterns."""
    for path in folder.iterdir():
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            yield path
