"""Which model types the installed transformers loads as chat models, read from its source without importing it."""

from __future__ import annotations

import re
from functools import cache
from importlib import util
from pathlib import Path

_TABLE = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_PAIR = re.compile(r'^\s*\(\s*"([^"]+)",\s*[("]', re.MULTILINE)


@cache
def chat_types() -> frozenset[str]:
    """Return the `model_type`s that `AutoModelForCausalLM` takes; empty if that cannot be told."""
    try:
        found = util.find_spec("transformers")
        folders = found.submodule_search_locations if found else None
        text = Path(folders[0], "models", "auto", "modeling_auto.py").read_text(encoding="utf-8") if folders else ""
    except (OSError, ValueError, ImportError):
        return frozenset()
    _, _, table = text.partition(f"{_TABLE} = ")
    return frozenset(_PAIR.findall(table.partition("\n)\n")[0]))


def is_chat_type(model_type: str) -> bool:
    """Whether a type can be loaded as a chat model, as far as that can be told."""
    return not chat_types() or model_type in chat_types()
