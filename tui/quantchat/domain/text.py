"""Text that can be stored and sent."""

from __future__ import annotations

from typing import Any


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 cannot hold, by question marks, in a text or all texts of plain data."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in value]
    return value
