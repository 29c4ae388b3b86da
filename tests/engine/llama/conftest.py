from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.llama import tiny_gguf
from engine.llama.letters import Answer
from engine.rig import Rig
from quantchat.engine.backends.llama.sampler import Sampler


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GGUF file."""
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny-F32.gguf")


@pytest.fixture(scope="session")
def llama() -> Iterator[Rig]:
    """A worker with llama.cpp in this process."""
    rig = Rig("llama")
    yield rig
    assert rig.worker.close(timeout=30)


@pytest.fixture
def loaded(llama: Rig, tiny: Path) -> Rig:
    """The worker with the tiny file loaded anew: nothing is remembered."""
    answer = llama.load(tiny)
    assert not hasattr(answer, "error"), answer
    llama.events.clear()
    return llama


@pytest.fixture
def alone(llama: Rig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Return a function that gives the answer of a turn that runs by itself."""
    leads: list[float] = []
    sample = Sampler.sample

    def watched(sampler: Sampler, logits: np.ndarray) -> int:
        second, best = np.partition(logits, len(logits) - 2)[-2:]
        leads.append(float(best - second))
        return sample(sampler, logits)

    def answer(*arguments, **options) -> Answer:
        leads.clear()
        with monkeypatch.context() as watching:
            watching.setattr(Sampler, "sample", watched)
            text, _ = llama.answer(*arguments, **options)
        return Answer(text, list(leads))

    return answer
