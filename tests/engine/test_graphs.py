"""The fast decode path without its graphs: the same fixed buffers and buckets, the step run as it is."""

from __future__ import annotations

import pytest
import torch

from engine import zoo
from engine.fast_rig import ACCEPTED, SHORTEST, build, decode, eager, feed, prefilled, prompt
from quantchat.engine import capture

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models():
    return {kind: zoo.make(kind) for kind in zoo.KINDS}


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.parametrize("length", [2, SHORTEST - 1, SHORTEST, SHORTEST + 1, 2 * SHORTEST - 3])
def test_tokens_are_those_of_the_ordinary_path(models, kind, length):
    model, ids = models[kind], prompt(length, seed=length)
    expected, rows = eager(model, ids, 12)
    decoder = build(model)
    session = prefilled(model, ids)
    assert decoder.attach(session) is None
    found = decode(decoder, ids[-1], 12)
    decoder.detach()
    differing = next((index for index in range(12) if expected[index] != found[index]), None)
    assert differing is None or capture.is_tie(rows[differing], expected[differing], found[differing])
    assert session.ids == [*ids, *found[:-1]]


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_text_that_outgrows_its_bucket_goes_on_in_the_next(models, kind):
    model, ids = models[kind], prompt(SHORTEST - 4)
    expected, _ = eager(model, ids, SHORTEST + 20)
    decoder = build(model)
    decoder.attach(prefilled(model, ids))
    assert decoder.lengths == (SHORTEST,)
    assert decode(decoder, ids[-1], SHORTEST + 20) == expected
    assert decoder.lengths == (SHORTEST, 2 * SHORTEST, 4 * SHORTEST)
    assert decoder.nbytes == sum(decoder._layout.nbytes(length) for length in decoder.lengths)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_ordinary_path_goes_on_from_what_was_written_back(models, kind):
    model, ids = models[kind], prompt(20)
    expected, _ = eager(model, ids, 24)
    decoder = build(model)
    session = prefilled(model, ids)
    token, found = ids[-1], []
    for round_ in range(4):
        if round_ % 2 == 0:
            assert decoder.attach(session) is None
            found += decode(decoder, token, 6)
            decoder.detach()
        else:
            for _ in range(6):
                inputs = torch.tensor([[found[-1]]])
                logits = model(input_ids=inputs, past_key_values=session.cache, use_cache=True).logits[0, -1]
                session.append(found[-1:])
                found.append(int(logits.argmax()))
        token = found[-1]
    assert found == expected
    assert len(session.ids) == session.cache.get_seq_length() == len(ids) + 23


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_second_question_reuses_what_the_first_left(models, kind):
    """Between the answers the session drops the end of the first one and takes another path."""
    model, ids = models[kind], prompt(24)
    decoder = build(model)
    session = prefilled(model, ids)
    decoder.attach(session)
    first = decode(decoder, ids[-1], 10)
    decoder.detach()
    following = [*ids, *first[:5], *prompt(7, seed=3)]
    feed(model, session, following[:-1])
    assert decoder.attach(session) is None
    expected, _ = eager(model, following, 10)
    assert decode(decoder, following[-1], 10) == expected


@pytest.mark.parametrize("kind", ACCEPTED)
def test_two_sessions_alternate(models, kind):
    model = models[kind]
    decoder = build(model)
    prompts = [prompt(25, seed=1), prompt(29, seed=2)]
    sessions = [prefilled(model, ids) for ids in prompts]
    found: list[list[int]] = [[], []]
    for _ in range(5):
        for tokens, session, ids in zip(found, sessions, prompts, strict=True):
            assert decoder.attach(session) is None
            tokens += decode(decoder, [*ids, *tokens][-1], 3)
    assert found == [eager(model, ids, 15)[0] for ids in prompts]


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_session_that_was_only_visited_is_still_trusted(models, kind):
    session = prefilled(models[kind], prompt(30))
    decoder = build(models[kind])
    decoder.attach(session)
    decoder.detach()
    assert session.reuse(prompt(30)) == 29


def test_coming_back_copies_only_what_is_new(models):
    model = models["llama"]
    decoder = build(model)
    session = prefilled(model, prompt(20))
    decoder.attach(session)
    decode(decoder, 5, 4)
    decoder.detach()
    bucket = decoder._buckets[SHORTEST][0]
    marked = bucket.layers[0].keys[0, 0, 3, 0].clone()
    session.cache.layers[0].keys[0, 0, 3, 0] = 77.0
    decoder.attach(session)
    assert bucket.layers[0].keys[0, 0, 3, 0] == marked
    other = prefilled(model, prompt(20))
    other.cache.layers[0].keys[0, 0, 3, 0] = 77.0
    decoder.attach(other)
    assert bucket.layers[0].keys[0, 0, 3, 0] == 77.0
