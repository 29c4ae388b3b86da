"""Texts that are part of a prompt and are not shown in it: large pastes and files.

In the prompt an attachment stands as a token, such as `[paste 1: 314 lines]`. What is sent and stored holds, in place
of the token, a block that can be told apart and read back:

    [file 2: notes.py, 2 lines]
    ```python
    import this
    print("done")
    ```

The fence is longer than any run of backticks in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

import msgspec

from quantchat.domain.text import clean

_NUMBERED = re.compile(r"\[(?:paste|file) (\d{1,18}): ")
_FORM = r"\[(?:paste (\d{1,18}): |file (\d{1,18}): ([^\n]+), )\d+ (?:lines?|characters?)\]"
_OPENING = re.compile(rf"^{_FORM}\n(`{{3,}})[^`\n]*\n", re.MULTILINE)
_LANGUAGES = {
    "bash": "sh bash zsh",
    "c": "c h",
    "cpp": "cc cpp cxx hpp cu cuh",
    "csharp": "cs",
    "css": "css",
    "diff": "diff patch",
    "go": "go",
    "html": "html htm",
    "ini": "ini cfg conf",
    "java": "java",
    "javascript": "js mjs cjs jsx",
    "json": "json jsonl ipynb",
    "kotlin": "kt",
    "lua": "lua",
    "markdown": "md markdown",
    "perl": "pl pm",
    "php": "php",
    "python": "py pyi",
    "r": "r",
    "rst": "rst",
    "ruby": "rb",
    "rust": "rs",
    "scala": "scala",
    "sql": "sql",
    "swift": "swift",
    "tex": "tex bib",
    "toml": "toml",
    "typescript": "ts tsx",
    "xml": "xml svg",
    "yaml": "yaml yml",
    "": "txt text log csv tsv",
}
LANGUAGE_OF = {f".{suffix}": language for language, suffixes in _LANGUAGES.items() for suffix in suffixes.split()}
"""The name of a fence's language by the suffix of a text file."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A paste or a file.

    Attributes:
        number: Tells the attachments of one prompt apart.
        text: The content, exactly as it is sent.
        name: The name of the file, safe to show; empty for a paste.
    """

    number: int
    text: str
    name: str = ""

    @classmethod
    def file(cls, number: int, name: str, text: str) -> Attachment:
        """Attach a file under a name that is safe to show."""
        return cls(number=number, text=text, name=clean(name, newlines=False).strip() or "unnamed")

    @property
    def token(self) -> str:
        """What stands for it in the prompt."""
        lines = self.text.count("\n") + (not self.text.endswith("\n"))
        count, unit = (lines, "line") if lines > 1 else (len(self.text), "character")
        size = f"{count} {unit}{'' if count == 1 else 's'}"
        return f"[file {self.number}: {self.name}, {size}]" if self.name else f"[paste {self.number}: {size}]"

    def block(self) -> str:
        """What is sent of it."""
        longest = max((len(run) for run in re.findall("`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)
        language = LANGUAGE_OF.get(PurePath(self.name).suffix.lower(), "")
        return f"{self.token}\n{fence}{language}\n{self.text}\n{fence}"


def parts(text: str) -> Iterator[str | Attachment]:
    """Split a sent text into words and the attachments among them."""
    done = 0
    for opening in _OPENING.finditer(text):
        if opening.start() < done:
            continue
        attachment, end = _read_block(text, opening)
        if attachment is None:
            continue
        if opening.start() > done:
            yield text[done : opening.start()]
        yield attachment
        done = end
    if done < len(text):
        yield text[done:]


def _read_block(text: str, opening: re.Match[str]) -> tuple[Attachment | None, int]:
    paste, file, name, fence = opening.groups()
    close = text.find(f"\n{fence}", opening.end())
    end = close + 1 + len(fence)
    if close < 0 or text[end : end + 1] not in ("", "\n"):
        return None, 0
    attachment = Attachment(number=int(paste or file), text=text[opening.end() : close], name=name or "")
    # Anything that this module would have written differently is somebody's own text.
    return (attachment, end) if attachment.block() == text[opening.start() : end] else (None, 0)


def next_number(text: str) -> int:
    """Return a number that no token in a text has."""
    return 1 + max(map(int, _NUMBERED.findall(text)), default=0)


class Draft(msgspec.Struct, frozen=True, omit_defaults=True):
    """A prompt as it is written: text with tokens, and what they stand for."""

    text: str = ""
    attachments: tuple[Attachment, ...] = ()

    @classmethod
    def folded(cls, text: str) -> Draft:
        """Turn the blocks of a sent text back into tokens; `expanded` gives the same text again.

        An attachment whose token another one has, or the words before it, gets a new number.
        """
        words, attachments, number = "", [], next_number(text)
        for part in parts(text):
            if isinstance(part, Attachment):
                if part.token in words:
                    part, number = msgspec.structs.replace(part, number=number), number + 1
                attachments.append(part)
                words += part.token
            else:
                words += part
        return cls(words, tuple(attachments))

    def expanded(self) -> str:
        """Return what is sent: each token, where it stands first, replaced by its block on lines of its own."""
        places = sorted(
            ((start, a) for a in self.attachments if (start := self.text.find(a.token)) >= 0),
            key=lambda place: place[0],
        )
        out, done = "", 0
        for start, attachment in places:
            out = _behind(out, self.text[done:start].rstrip(" "))
            out += ("\n" if out and not out.endswith("\n") else "") + attachment.block()
            done = start + len(attachment.token)
        return _behind(out, self.text[done:])

    def with_files(self, files: Iterable[Attachment]) -> Draft:
        """Put files that the text mentions behind it."""
        added = tuple(files)
        text = "\n\n".join([self.text, "\n".join(file.token for file in added)]) if added else self.text
        return Draft(text, self.attachments + added)

    def joined(self, later: Draft) -> Draft:
        """Put another draft behind this one, numbering its attachments anew."""
        both = "\n\n".join(text for text in (self.expanded(), later.expanded()) if text)
        return later if not self.text else self if not later.text else Draft.folded(both)


def _behind(block: str, words: str) -> str:
    words = words.lstrip(" ") if block else words
    return block + ("\n" if block and words and not words.startswith("\n") else "") + words
