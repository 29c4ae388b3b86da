"""The kinds of servers: how each is recognised, and what it calls our sampling settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal["vllm", "sglang", "llama.cpp", "llama-cpp-python", "transformers", "openai", "other"]
Tokens = Literal["vllm", "llama.cpp", "extras", ""]
Resumes = Literal["field", "last", "perhaps", ""]


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of server is talked to.

    Attributes:
        label: Its name, to be shown.
        fields: Our settings to its fields; what is missing it does not know.
        whole: It takes all of `fields` at any value. Elsewhere only those that do something are sent, as a server
            that nobody knows may refuse a field by its name alone.
        nested: Fields that go as JSON into its field `generation_config`.
        tokens: How it tells tokens: `vllm` and `llama.cpp` of conversations and texts, `extras` of texts, or not.
        all_k: The value of top-k that keeps all tokens.
        limit: What it calls the longest answer.
        seeds: A seed can be drawn here, as the same one gives the same text again; the largest is `most_seed`.
        parallel: Several answers run side by side; elsewhere a second request may break off the first.
        finishes: It always says why an answer ended; without a reason it was broken off.
        constant: Sent with every request.
        resumes: It can go on in the middle of an answer: by a field, by the answer standing last, or not.
        on_demand: Models that it does not list may still be asked for.
        has_health: Its `/health` costs nothing. A server that nobody knows may ask all its models there, which are
            paid for, as LiteLLM does.
    """

    label: str
    fields: Mapping[str, str]
    whole: bool = True
    nested: frozenset[str] = frozenset()
    tokens: Tokens = ""
    all_k: int = 0
    limit: str = "max_tokens"
    seeds: bool = True
    most_seed: int = 2**62
    parallel: bool = True
    finishes: bool = True
    constant: Mapping[str, object] = {}
    resumes: Resumes = ""
    on_demand: bool = False
    has_health: bool = True


_COMMON = {name: name for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")}
_VLLM = _COMMON | {name: name for name in ("top_k", "min_p", "repetition_penalty")}
_LLAMA = _COMMON | {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
_MOST_LLAMA_SEED = 2**32 - 2
"""The one above it means a new seed each time."""
_GENERATE = {
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
}

DIALECTS: Mapping[Kind, Dialect] = {
    "vllm": Dialect(label="vLLM", fields=_VLLM, all_k=-1, tokens="vllm", resumes="field"),
    "sglang": Dialect(label="SGLang", fields=_VLLM, all_k=-1, resumes="field"),
    "llama.cpp": Dialect(
        label="llama.cpp",
        fields=_LLAMA | {"typical_p": "typical_p"},
        tokens="llama.cpp",
        most_seed=_MOST_LLAMA_SEED,
        # Its penalties look at the last 64 tokens by default, ours at all.
        constant={"repeat_last_n": -1, "cache_prompt": True, "timings_per_token": True, "return_progress": True},
        resumes="last",
    ),
    "llama-cpp-python": Dialect(
        label="llama-cpp-python", fields=_LLAMA, tokens="extras", most_seed=_MOST_LLAMA_SEED, parallel=False
    ),
    # What it calls frequency penalty it takes for a repetition penalty; the presence penalty it drops.
    "transformers": Dialect(
        label="transformers serve",
        fields={"temperature": "temperature", "top_p": "top_p", **_GENERATE},
        nested=frozenset(_GENERATE),
        on_demand=True,
    ),
    "openai": Dialect(
        label="OpenAI", fields=_COMMON, whole=False, limit="max_completion_tokens", seeds=False, has_health=False
    ),
    "other": Dialect(
        label="OpenAI-compatible",
        fields=_VLLM | {"typical_p": "typical_p"},
        whole=False,
        seeds=False,
        finishes=False,
        resumes="perhaps",
        on_demand=True,
        has_health=False,
    ),
}
_OWNERS: Mapping[str, Kind] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
_OPENAI_HOST = "api.openai.com"


def kind_by_list(host: str, header: str, owners: frozenset[str]) -> Kind | None:
    """Recognise a server by its host, its `Server` header, and who its list says that the models belong to."""
    if host == _OPENAI_HOST:
        return "openai"
    if header.strip().lower().startswith("llama.cpp"):
        return "llama.cpp"
    return next((kind for owner, kind in _OWNERS.items() if owner in owners), None)


def kind_by_schema(schema: object) -> Kind:
    """Recognise a server by the description of its own API that it publishes."""
    match schema:
        case {"info": {"title": str(title)}} if "llama.cpp Python" in title:
            return "llama-cpp-python"
        case {"paths": {"/load_model": _, "/v1/chat/completions": _}}:
            return "transformers"
        case {"paths": {"/tokenize": _, "/detokenize": _, "/v1/chat/completions": _}}:
            return "vllm"
        case _:
            return "other"
