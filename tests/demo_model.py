"""The demo's real 4-bit model, made once by the demo's own code and kept outside the checkout."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

from quantchat.services.demo import Demo, Progress

HOME = Path.home() / ".cache" / "quantchat-tests" / "demo"


def demo_model() -> Path:
    """Return the model's folder; the first call on a machine makes it (three minutes and a 93 MB download)."""
    HOME.mkdir(parents=True, exist_ok=True)
    demo = Demo(models_dir=HOME, cache_dir=HOME / "cache")
    with (HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return asyncio.run(demo.prepare(_quiet))


def _quiet(progress: Progress) -> None:
    """Tests print nothing."""


if __name__ == "__main__":
    print(demo_model())
