"""Sampling: the same distribution as transformers' processors, the same text for the same seed, rules that hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList
from transformers.generation import logits_process as reference

from demo_model import demo_model
from engine import tiny
from quantchat.domain.generation import SamplingSettings
from quantchat.engine.rules import tokenizations
from quantchat.engine.sampling import PROBE, Sampler
from quantchat.errors import GenerationError

pytestmark = pytest.mark.engine
torch.set_num_threads(1)

VOCABULARY = 500
MANY = 20_000
ALL = SamplingSettings(temperature=1, top_k=0, top_p=1)


@dataclass
class Words:
    """A tokenizer of given texts."""

    ids: dict[str, list[int]]
    all_special_ids: tuple[int, ...] = ()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.ids.get(text, [])


def sampler(wanted: SamplingSettings, prompt=(), seed: int | None = 1, tokenizer=None) -> Sampler:
    return Sampler(wanted, seed=seed, tokenizer=tokenizer, prompt=prompt, device="cpu")


def random_logits(seed: int, size: int = VOCABULARY, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def probabilities(chooser: Sampler, logits: torch.Tensor) -> np.ndarray:
    distribution = chooser.distribution(logits)
    full = np.zeros(len(logits))
    full[distribution.tokens] = distribution.probabilities
    return full


def expected(wanted: SamplingSettings, logits: torch.Tensor, said: list[int]) -> np.ndarray:
    """What transformers' own processors make of the logits, in the order of its `generate`."""
    chain = LogitsProcessorList()
    if wanted.repetition_penalty != 1:
        chain.append(reference.RepetitionPenaltyLogitsProcessor(wanted.repetition_penalty))
    if wanted.no_repeat_ngram:
        chain.append(reference.NoRepeatNGramLogitsProcessor(wanted.no_repeat_ngram))
    chain.append(reference.TemperatureLogitsWarper(wanted.temperature))
    if wanted.top_k:
        chain.append(reference.TopKLogitsWarper(wanted.top_k))
    if wanted.top_p < 1:
        chain.append(reference.TopPLogitsWarper(wanted.top_p))
    if wanted.min_p:
        chain.append(reference.MinPLogitsWarper(wanted.min_p))
    if wanted.typical_p < 1:
        chain.append(reference.TypicalLogitsWarper(wanted.typical_p))
    scores = chain(torch.tensor([said], dtype=torch.long), logits[None].to(torch.float64))
    return scores[0].softmax(-1).numpy()


sampling = st.builds(
    SamplingSettings,
    temperature=st.floats(0.2, 3),
    top_k=st.sampled_from([0, 1, 7, 50, 10_000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.3]),
    typical_p=st.sampled_from([1.0, 0.9, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.2, 0.8]),
    no_repeat_ngram=st.sampled_from([0, 1, 2, 3]),
)


@settings(deadline=None, max_examples=300)
@given(sampling, st.integers(0, 10_000), st.lists(st.integers(0, 5), min_size=4, max_size=40), st.integers(1, 39))
def test_the_distribution_is_that_of_transformers(wanted, seed, said, cut):
    logits = random_logits(seed)
    chooser = sampler(wanted, prompt=said[:cut])
    for token in said[cut:]:
        chooser.accept(token)
    np.testing.assert_allclose(probabilities(chooser, logits), expected(wanted, logits, said), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        SamplingSettings,
        temperature=st.sampled_from([0.3, 1.0, 4.0]),
        top_k=st.sampled_from([0, 50]),
        top_p=st.sampled_from([1.0, 0.9]),
        min_p=st.sampled_from([0.0, 0.001, 0.1]),
    ),
    st.integers(0, 10_000),
)
def test_a_large_vocabulary_that_is_only_looked_at_in_part_gives_the_same(wanted, seed):
    """Its size is no multiple of the groups; the flat one does not fit into the probe."""
    for spread in (0.5, 6.0):
        logits = random_logits(seed, 8 * PROBE + 3, spread)
        np.testing.assert_allclose(
            probabilities(sampler(wanted), logits), expected(wanted, logits, []), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("wanted", [ALL, SamplingSettings(), SamplingSettings(top_k=0, min_p=0.02)])
def test_tokens_come_as_often_as_their_probabilities_say(wanted):
    logits = random_logits(5, 40, 1.5)
    chooser = sampler(wanted, seed=20)
    counts = np.bincount([chooser.sample(logits) for _ in range(MANY)], minlength=40)
    ideal = MANY * probabilities(chooser, logits)
    assert not counts[ideal == 0].any()
    kept = ideal > 5
    freedom = int(kept.sum()) - 1
    chi_square = (((counts - ideal) ** 2) / np.where(ideal > 0, ideal, 1))[kept].sum()
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


@given(st.integers(0, 1000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_greedy_takes_the_most_probable(seed, dtype):
    logits = random_logits(seed).to(dtype)
    token = sampler(SamplingSettings(temperature=0), seed=None).sample(logits)
    assert logits[token] == logits.max()
    assert sampler(SamplingSettings(temperature=1e-30, top_k=0)).sample(logits) == token


def test_the_same_seed_gives_the_same_tokens_and_another_one_others():
    rows = [random_logits(step, spread=1.0) for step in range(40)]

    def said(seed: int, wanted: SamplingSettings = ALL) -> list[int]:
        chooser = sampler(wanted, seed=seed)
        return [chooser.sample(row) for row in rows]

    assert said(3) == said(3)
    assert said(3) != said(4)
    assert said(2**62 - 1) != said(3)


def test_each_token_costs_one_random_number_whatever_the_settings():
    """Turns side by side, and drafts that were wrong, do not change a seed's text."""
    logits = random_logits(1)
    states = set()
    for wanted in (ALL, SamplingSettings(), SamplingSettings(top_k=0, min_p=0.1), SamplingSettings(typical_p=0.5)):
        chooser = sampler(wanted, seed=9)
        for _ in range(3):
            chooser.sample(logits)
        states.add(chooser._random.getstate())
    assert len(states) == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=120), st.lists(st.integers(0, 400), max_size=200))
def test_penalties_kept_token_by_token_are_those_computed_anew(prompt, answer):
    wanted = SamplingSettings(
        temperature=1, top_k=0, top_p=1, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2
    )
    logits = random_logits(2)
    chooser = sampler(wanted, prompt=prompt)
    for token in answer:
        chooser.accept(token)
    anew = logits.clone().double()
    for token in {*prompt, *answer}:
        anew[token] = anew[token] / 1.3 if anew[token] > 0 else anew[token] * 1.3
    for token in set(answer):
        anew[token] -= 0.4 + 0.2 * answer.count(token)
    before = logits.clone()
    np.testing.assert_allclose(probabilities(chooser, logits), anew.softmax(-1).numpy(), atol=1e-6)
    assert torch.equal(logits, before), "the caller's logits were changed"


@given(st.integers(1, 4), st.integers(0, 100))
def test_no_sequence_of_tokens_comes_twice(size, seed):
    chooser = sampler(
        SamplingSettings(temperature=1, top_k=0, top_p=1, no_repeat_ngram=size), prompt=[1, 2, 3], seed=seed
    )
    logits, said = random_logits(seed, 40), [1, 2, 3]
    for _ in range(30):
        said.append(chooser.sample(logits))
        chooser.accept(said[-1])
    found = [tuple(said[place : place + size]) for place in range(len(said) - size + 1)]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "wanted", [ALL, SamplingSettings(temperature=0), SamplingSettings(), SamplingSettings(top_k=0)]
)
@pytest.mark.parametrize("size", [40, 8 * PROBE])
def test_broken_logits_are_told_and_not_drawn_from(wanted, size):
    for bad in (math.nan, math.inf):
        logits = random_logits(1, size)
        logits[size - 1] = bad
        with pytest.raises(GenerationError, match="not a number"):
            sampler(wanted).sample(logits)
    with pytest.raises(GenerationError, match="not a number"):
        sampler(wanted).sample(torch.full((size,), -math.inf))


def test_settings_that_forbid_every_token_say_so():
    chooser = sampler(SamplingSettings(no_repeat_ngram=1), prompt=range(9))
    with pytest.raises(GenerationError, match="forbid every token"):
        chooser.sample(random_logits(1, 9))


def test_a_bias_is_added_to_one_token_and_leads_through_several():
    tokenizer = Words({"\n": [9], "a": [8], "\none": [9, 1], "a one": [8, 2], "\ntwo": [9, 3, 4], "a two": [8, 5]})
    assert tokenizations(tokenizer, "one") == {(1,), (2,)}
    assert tokenizations(tokenizer, "two") == {(3, 4), (5,)}
    logits = torch.zeros(10)

    def raised(wanted: dict[str, float], said: list[int]) -> dict[int, float]:
        chooser = sampler(SamplingSettings(logit_bias=wanted), tokenizer=tokenizer)
        for token in said:
            chooser.accept(token)
        scores = chooser._processed(logits)
        return {token: float(scores[token]) for token in range(10) if scores[token]}

    assert raised({"one": 2, "two": -3}, []) == {1: 2, 2: 2, 5: -3}
    assert raised({"one": 2, "two": -3}, [3]) == {1: 2, 2: 2, 5: -3, 4: -3}
    assert raised({"two": 4}, []) == {3: 4, 5: 4}
    assert raised({"two": 4}, [0, 3]) == {3: 4, 4: 4, 5: 4}


def test_a_negative_bias_of_several_tokens_is_that_of_transformers():
    tokenizer = Words({"\n": [9], "a": [8], "\nword": [9, 1, 2, 3], "a word": [8, 4, 5]})
    bias = {(1, 2, 3): -5.0, (4, 5): -5.0}
    logits = random_logits(3, 10)
    for said in ([1, 2], [4], [7, 1, 2], [2], []):
        chooser = sampler(
            SamplingSettings(temperature=1, top_k=0, top_p=1, logit_bias={"word": -5}), said, 1, tokenizer
        )
        scores = reference.SequenceBiasLogitsProcessor(bias)(torch.tensor([said], dtype=torch.long), logits[None])
        np.testing.assert_allclose(probabilities(chooser, logits), scores[0].double().softmax(-1), atol=1e-6)


@pytest.fixture(scope="module", params=["tiny", "demo"])
def tokenizer(request):
    if request.param == "tiny":
        return tiny.make_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_model())


@pytest.mark.parametrize("word", ["dog", "numbers", " morning", "Deich", "zzyzx"])
def test_a_bias_bans_and_forces_words_of_a_real_tokenizer(tokenizer, word):
    forms = tokenizations(tokenizer, word)
    texts = {tokenizer.decode(list(form)) for form in forms}
    assert texts == ({word} if word.startswith(" ") else {word, f" {word}"})
    flat = torch.zeros(len(tokenizer))
    forced = sampler(SamplingSettings(logit_bias={word: 100}), tokenizer=tokenizer)
    token = forced.sample(flat)
    assert token in {form[0] for form in forms}
    for form in forms:
        banned = sampler(SamplingSettings(temperature=1, logit_bias={word: -100}), form[:-1], tokenizer=tokenizer)
        logits = flat.clone()
        logits[form[-1]] = 50
        assert banned.sample(logits) != form[-1]


def test_a_forced_word_is_said_to_its_end(tokenizer):
    chooser = sampler(SamplingSettings(temperature=0, logit_bias={"zzyzx": 20}), tokenizer=tokenizer)
    said: list[int] = []
    for _ in range(12):
        said.append(chooser.sample(random_logits(len(said), len(tokenizer), 0.1)))
        chooser.accept(said[-1])
    assert "z" in tokenizer.decode(said)
    assert all(any(token in form for form in tokenizations(tokenizer, "zzyzx")) for token in said)


def test_a_special_token_is_biased_as_itself(tokenizer):
    assert tokenizations(tokenizer, tokenizer.eos_token) == {(tokenizer.eos_token_id,)}


def test_a_token_without_logits_is_left_out():
    chooser = sampler(SamplingSettings(logit_bias={"x": 5}), tokenizer=Words({"x": [700]}, (700,)))
    assert 0 <= chooser.sample(random_logits(1)) < VOCABULARY
