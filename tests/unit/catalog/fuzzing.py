"""What the fuzz tests share: how many cases they try, and what is held of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from unit.catalog.limits import Limits

EXAMPLES = {
    "configs": 1800, "old configs": 800, "bytes": 1600, "headers": 1600, "indices": 800, "cut weights": 500,
    "gguf headers": 1400, "gguf bytes": 500, "gguf changed": 1000,
}  # fmt: skip
COMMANDING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, or what reorders a line."""

limits = Limits()


def cases(of: str) -> settings:
    return settings(max_examples=EXAMPLES[of], deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    limits.clear()
    yield
    print(f"\n{limits}")


def judged(path: Path) -> ModelInfo:
    """Read a model, and see that it can be stored and shown."""
    model = limits.hold(lambda: read_model(path))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=ModelInfo).problems == model.problems
    msgspec.json.encode(model)
    shown = [model.name, model.architecture or "", model.quant.label(), model.verdict.reason, *model.files]
    shown += [text for problem in model.problems for text in (problem.cause, problem.remedy)]
    assert not any(COMMANDING.search(text) for text in shown), shown
    assert model.loadable or model.errors
    return model
