"""Sampling on the device: the same tokens as on the CPU, and the host waits once per token."""

from __future__ import annotations

import warnings

import pytest
import torch

from quantchat.domain.generation import SamplingSettings
from quantchat.engine.sampling import Sampler

VOCABULARY = 151_936
SETTINGS = {
    "greedy": SamplingSettings(temperature=0),
    "default": SamplingSettings(),
    "many": SamplingSettings(top_k=1000),
    "top-p": SamplingSettings(top_k=0),
    "min-p": SamplingSettings(temperature=1, top_k=0, top_p=1, min_p=0.01),
    "typical": SamplingSettings(typical_p=0.8),
    "penalties": SamplingSettings(repetition_penalty=1.2, presence_penalty=0.5, no_repeat_ngram=2),
}


def logits(step: int) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(step)) * 4


def said(wanted: SamplingSettings, device: str) -> list[int]:
    sampler = Sampler(wanted, seed=3, tokenizer=None, prompt=[5, 6, 7], device=device)
    tokens = []
    for step in range(40):
        tokens.append(sampler.sample(logits(step % 7).to(device)))
        sampler.accept(tokens[-1])
    return tokens


@pytest.mark.parametrize("wanted", SETTINGS.values(), ids=SETTINGS)
def test_a_seed_gives_the_same_tokens_on_every_device(device: str, wanted: SamplingSettings) -> None:
    assert said(wanted, device) == said(wanted, "cpu")


@pytest.mark.parametrize("name", ["greedy", "default", "many", "top-p", "min-p", "typical"])
def test_the_host_waits_once_per_token(device: str, name: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("only CUDA counts the waits")
    sampler = Sampler(SETTINGS[name], seed=3, tokenizer=None, prompt=(), device=device)
    row = logits(1).to(device)
    sampler.sample(row)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            sampler.sample(row)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([wait for wait in waits if "synchroniz" in str(wait.message)]) == 1
