"""Words of a command line."""

from __future__ import annotations

from collections.abc import Iterator


def option(name: str, value: object) -> Iterator[str]:
    """Return the words of an option; none if it has no value.

    A value that begins with a dash, as names of folders may, would be read as the next option by itself.
    """
    text = str(value) if value else ""
    if text.startswith("-"):
        yield f"{name}={text}"
    elif text:
        yield from (name, text)
