"""The sampler without torch chooses what torch's does: same logits, same settings, same seed, same token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import tiny
from quantchat.domain.generation import SamplingSettings
from quantchat.engine import sampling
from quantchat.engine.backends.llama.sampler import Sampler, largest
from quantchat.errors import GenerationError

pytestmark = pytest.mark.engine

DRAWS = 40
SETTINGS = {
    "greedy": SamplingSettings(temperature=0),
    "everything": SamplingSettings(temperature=1, top_k=0, top_p=1),
    "top-k": SamplingSettings(temperature=0.8, top_k=20, top_p=1),
    "top-k and top-p": SamplingSettings(temperature=0.8, top_k=50, top_p=0.9),
    "a large top-k": SamplingSettings(temperature=1.3, top_k=300, top_p=0.95),
    "top-p": SamplingSettings(temperature=1, top_k=0, top_p=0.8),
    "top-p of nearly all": SamplingSettings(temperature=5, top_k=0, top_p=0.99),
    "min-p": SamplingSettings(temperature=1, top_k=0, top_p=1, min_p=0.1),
    "typical-p": SamplingSettings(temperature=1, top_k=0, top_p=1, typical_p=0.7),
    "repetition": SamplingSettings(temperature=1, repetition_penalty=1.4),
    "presence and frequency": SamplingSettings(temperature=1, presence_penalty=1.1, frequency_penalty=0.7),
    "no n-gram twice": SamplingSettings(temperature=0.3, no_repeat_ngram=2),
    "bias": SamplingSettings(temperature=1, logit_bias={"the": 3.0, "quick brown": -50.0, "</s>": 2.0}),
}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer()


@pytest.mark.parametrize("size", [384, 5000, 70_001])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_both_samplers_choose_the_same(settings: SamplingSettings, size: int, tokenizer) -> None:
    random = np.random.default_rng(3)
    prompt = [int(token) for token in random.integers(0, 300, 40)]
    wanted = sampling.Sampler(settings, seed=5, tokenizer=tokenizer, prompt=prompt, device="cpu")
    found = Sampler(settings, seed=5, tokenizer=tokenizer, prompt=prompt)
    for _ in range(DRAWS):
        logits = random.normal(0, 3, size).astype(np.float32)
        before = logits.copy()
        token = found.sample(logits)
        assert token == wanted.sample(torch.from_numpy(before.copy()))
        assert (logits == before).all()
        found.accept(token)
        wanted.accept(token)


@pytest.mark.parametrize("count", [1, 50, 1024])
def test_the_largest_are_found_in_groups(count: int) -> None:
    scores = np.random.default_rng(1).normal(size=150_003).astype(np.float32)
    values, places = largest(scores, count)
    expected = np.sort(scores)[::-1][:count]
    assert (values == expected).all()
    assert (scores[places] == expected).all()


def test_the_largest_may_be_in_the_rest_that_makes_no_group() -> None:
    scores = np.zeros(64 * 200 + 3, np.float32)
    scores[-1] = 5
    assert largest(scores, 1)[1].tolist() == [len(scores) - 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [SETTINGS["greedy"], SETTINGS["top-k"], SETTINGS["everything"]])
def test_logits_that_are_no_numbers_are_refused(bad: float, settings: SamplingSettings, tokenizer) -> None:
    logits = np.zeros(384, np.float32)
    logits[7] = bad
    with pytest.raises(GenerationError) as caught:
        Sampler(settings, seed=1, tokenizer=tokenizer, prompt=[]).sample(logits)
    assert caught.value.report.code == "bad-logits"
