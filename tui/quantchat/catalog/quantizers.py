"""Which models the installed libraries can quantize and unpack, read from their sources without importing them."""

from __future__ import annotations

import re
from functools import cache
from importlib import util
from pathlib import Path

_KEY = re.compile(r'^    "([\w.-]+)":', re.MULTILINE)
_ADDED = re.compile(r'^ +MODEL_MAP\["(\w+)"\] =', re.MULTILINE)


@cache
def quantizable_types() -> frozenset[str]:
    """Return the `model_type`s whose layers GPTQModel knows; empty if that cannot be told.

    Those of others it looks for by itself, mostly with success.
    """
    text = _source("gptqmodel", "models/auto.py")
    return frozenset((*_KEY.findall(_table(text, "MODEL_MAP = {")), *_ADDED.findall(text)))


@cache
def gguf_types() -> frozenset[str]:
    """Return the architectures whose GGUF files transformers unpacks, as `plain_type`; empty if that cannot be told."""
    text = _source("transformers", "integrations/ggml.py")
    return frozenset(map(plain_type, _KEY.findall(_table(text, "GGUF_CONFIG_MAPPING = {"))))


def plain_type(name: str) -> str:
    """Write an architecture as both sides would: `qwen2moe` for `qwen2_moe`, `gptoss` for `gpt-oss`."""
    return re.sub(r"[-_.]", "", name.casefold())


def _table(text: str, begin: str) -> str:
    return text.partition(begin)[2].partition("\n}\n")[0]


def _source(package: str, path: str) -> str:
    try:
        found = util.find_spec(package)
        folders = found.submodule_search_locations if found else None
        return Path(folders[0], path).read_text(encoding="utf-8") if folders else ""
    except (OSError, ValueError, ImportError):
        return ""
