"""Asks no servers: tells of them what a JSON file says, in the words of the process that asks.

Run it in place of that with `QUANTCHAT_LISTING_COMMAND="tests/scripted_listing.py"`. The environment variable
`QUANTCHAT_LISTINGS` names a JSON file: `{URL of a server: what is told of it, "" for its models by name}`. What it
does not name is told as unreachable, `null` is never told, and `{"key": "..."}` is refused without that key. What was
asked is written, a line each, beside it with the suffix `.asked`, the keys left out.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def told(server: dict[str, Any], script: dict[str, Any]) -> dict[str, Any] | None:
    found = script.get(server["url"], "unreachable")
    if found == "unreachable":
        error = {"code": "server-unreachable", "title": "The server does not answer", "detail": "connection refused"}
        return {"server": server["name"], "error": error}
    if found is None:
        return None
    if server["key"] != found.get("key", server["key"]):
        error = {"code": "server-key", "title": "The server refuses the key", "detail": "401"}
        return {"server": server["name"], "error": error}
    models = [{"id": name, "context_window": window} for name, window in found["models"].items()]
    return {"server": server["name"], "kind": "vllm", "label": "vLLM", "seconds": 0.01, "models": models}


def main() -> None:
    path = Path(os.environ["QUANTCHAT_LISTINGS"])
    script, question = json.loads(path.read_text()), json.loads(sys.stdin.read())
    with path.with_suffix(".asked").open("a") as log:
        for server in question["servers"]:
            log.write(json.dumps(server | {"key": bool(server["key"])}) + "\n")
    for server in question["servers"]:
        if (line := told(server, script)) is not None:
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
