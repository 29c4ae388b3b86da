"""`REPO[@REV]` as people write it, and as they copy it out of a browser."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

import msgspec

from quantchat.domain.text import clean
from quantchat.errors import UsageError

_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[^\s\x00-\x1f\x7f~^:?*\[\\]{1,200}")
_EXAMPLE = "Write it as owner/name or owner/name@revision; `quantchat pull --search WORDS` finds names"


class Wanted(msgspec.Struct, frozen=True):
    """A repository, and which revision of it: a branch, a tag or a commit."""

    repository: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"


def looks_like_repository(text: str) -> bool:
    """Whether a text names a repository rather than words to search for."""
    return "/" in text and " " not in text.strip()


def parse_name(text: str) -> Wanted:
    """Read `owner/name`, `owner/name@revision`, `hf://owner/name` or the address of a model's page.

    Raises:
        UsageError: if it is none of these.
    """
    name, _, revision = _without_host(_without_address(text.strip())).partition("@")
    parts = name.rstrip("/").split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) and "--" not in part and ".." not in part for part in parts):
        raise UsageError(f"{clean(text, newlines=False)!r} is no name of a repository", remedy=_EXAMPLE)
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision or revision.startswith("/")):
        raise UsageError(f"{clean(revision, newlines=False)!r} is no revision", remedy=_EXAMPLE)
    return Wanted("/".join(parts), revision or "main")


def _without_address(text: str) -> str:
    if text.startswith("hf://"):
        return text.removeprefix("hf://").removeprefix("models/")
    if not text.startswith(("http://", "https://")):
        return text
    try:
        path = urlsplit(_without_endpoint(text)).path
    except ValueError:
        return text
    parts = path.strip("/").split("/")
    if len(parts) >= 4 and parts[2] in ("tree", "blob", "resolve"):
        return f"{parts[0]}/{parts[1]}@{unquote(parts[3])}"
    return "/".join(parts)


def _without_endpoint(address: str) -> str:
    """A mirror may lie below a folder of its host, which is no owner of repositories."""
    hub = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return f"https://hub/{address[len(hub) + 1 :]}" if hub and address.startswith(f"{hub}/") else address


def _without_host(text: str) -> str:
    """`hub.example/owner/name`, as some browsers copy it."""
    host, _, rest = text.partition("/")
    return rest if "." in host.strip(".") and rest.count("/") == 1 and "@" not in host else text
