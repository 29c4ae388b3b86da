"""Servers for tests that ask none: a file says what each would tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LISTING = Path(__file__).parent / "scripted_listing.py"
URL = "http://127.0.0.1:8000/v1"
OTHER = "http://127.0.0.1:8001/v1"
MODELS = {"org/small": 4096, "org/large": 32768}


class Listings:
    """What servers tell, by URL, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "listings.json"
        self._told: dict[str, Any] = {}
        self._write()

    def env(self) -> dict[str, str]:
        return {"QUANTCHAT_LISTING_COMMAND": str(LISTING), "QUANTCHAT_LISTINGS": str(self._path)}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> Listings:
        for name, value in self.env().items():
            monkeypatch.setenv(name, value)
        return self

    def tell(self, url: str = URL, models: dict[str, int] | None = None, key: str | None = None) -> None:
        """Say that a server answers."""
        self._told[url] = {"models": MODELS if models is None else models} | ({"key": key} if key is not None else {})
        self._write()

    def say_nothing(self, url: str = URL) -> None:
        """Say that the process that asks ends without a word about a server."""
        self._told[url] = None
        self._write()

    def end(self, url: str = URL) -> None:
        """Say that a server is not reachable."""
        del self._told[url]
        self._write()

    @property
    def asked(self) -> list[dict[str, Any]]:
        log = self._path.with_suffix(".asked")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._told))
        new.replace(self._path)
