"""The engine of servers against two that others wrote, transformers serve and llama-cpp-python's, with a real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.rig import ENDS
from engine.servers.real import RealServer, llama_server, transformers_serve
from engine.servers.rig import ServerRig, until
from quantchat.domain.chat import ChatMessage
from quantchat.domain.generation import SamplingOverrides, SamplingSettings, resolve_sampling
from quantchat.engine import protocol as p
from quantchat.engine.backends.server.listing import Asked, list_server

pytestmark = pytest.mark.e2e
FRANCE = [ChatMessage("user", "What is the capital of France?")]
STORY = [ChatMessage("user", "Write a very long story about a king and his three daughters.")]
GREEDY = SamplingSettings(temperature=0, max_new_tokens=6)
LONG = SamplingSettings(temperature=0, max_new_tokens=1500)


@pytest.fixture(scope="module", params=["transformers", "llama-cpp-python"])
def real(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server with what the demo's model is made of: the plain folder, and the GGUF file."""
    scratch = tmp_path_factory.mktemp("server")
    if request.param == "transformers":
        started = transformers_serve(model.parent / "SmolLM2-135M-Instruct-bf16", scratch)
    else:
        started = llama_server(model.parent / "cache" / "demo" / "SmolLM2-135M-Instruct.Q4_1.gguf", scratch)
    with started as server:
        server.kind = request.param
        yield server


@pytest.fixture(scope="module")
def talking(real: RealServer) -> Iterator[ServerRig]:
    rig = ServerRig()
    loaded = rig.use(real.url, real.model)
    assert isinstance(loaded, p.Loaded), loaded
    yield rig
    assert rig.worker.close(timeout=30)


async def test_it_is_recognised_and_its_model_listed(real: RealServer) -> None:
    listed = await list_server(Asked(name="box", url=real.url, models=(real.model,)))
    assert listed.error is None
    assert (listed.kind, [model.id for model in listed.models]) == (real.kind, [real.model])


def test_it_answers_with_quantchats_defaults(talking: ServerRig) -> None:
    defaults = resolve_sampling(SamplingOverrides(max_new_tokens=6, seed=7))
    text, end = talking.answer(FRANCE, defaults)
    assert text
    assert isinstance(end, p.Finished)
    assert end.statistics.seed == 7
    assert end.statistics.new_tokens > 0
    # From here on the server finds the same prompt in its cache, and computes the same sums in the same order.
    again, once_more = (talking.answer(FRANCE, defaults)[0] for _ in range(2))
    assert again == once_more, "same seed, same text"


def test_the_answer_ends_at_its_limit(real: RealServer, talking: ServerRig) -> None:
    text, end = talking.answer(STORY, GREEDY)
    assert (end.reason, end.statistics.new_tokens) == ("length", 6)
    assert text
    # llama-cpp-python tells no counts in a stream; the pieces are counted there.
    assert (end.statistics.prompt_tokens > 0) is (real.kind == "transformers")


def test_stop_texts_end_it(talking: ServerRig) -> None:
    whole = talking.answer(STORY, GREEDY)[0]
    stop = whole.split()[3]
    text, end = talking.answer(STORY, msgspec.structs.replace(GREEDY, stop=(stop,)))
    assert (text, end.reason) == (whole[: whole.index(stop)], "stop")


def test_stop_ends_the_servers_work(real: RealServer, talking: ServerRig) -> None:
    turn = talking.start(STORY, LONG)
    talking.wait(p.Delta)
    until(real.computes)
    talking.worker.submit(p.Stop(turn=turn))
    end = talking.wait(*ENDS)
    assert (end.reason, bool(talking.text(turn))) == ("stopped", True)
    # Left alone it would compute for a minute.
    until(lambda: not real.computes(), patience=10)


def test_several_sessions_are_answered(talking: ServerRig) -> None:
    turns = {talking.start(FRANCE, GREEDY, session=name) for name in "ab"}
    ends = [talking.wait(*ENDS) for _ in turns]
    assert {end.turn for end in ends} == turns
    assert all(isinstance(end, p.Finished) for end in ends)
    assert len({talking.text(turn) for turn in turns}) == 1


@pytest.mark.parametrize("wish", [{"presence_penalty": 0.5}, {"no_repeat_ngram": 3}, {"typical_p": 0.5}])
def test_what_it_does_not_know_is_refused_and_the_rest_has_an_effect(
    real: RealServer, talking: ServerRig, wish
) -> None:
    settings = resolve_sampling(SamplingOverrides(max_new_tokens=3, seed=1, **wish))
    end = talking.answer(FRANCE, settings)[1]
    known = {"transformers": {"no_repeat_ngram", "typical_p"}, "llama-cpp-python": {"presence_penalty"}}[real.kind]
    if known & set(wish):
        assert isinstance(end, p.Finished)
    else:
        assert end.error.code == "sampling-rejected"
        assert next(iter(wish)) in end.error.title


def test_settings_beyond_openais_reach_the_model(real: RealServer, talking: ServerRig) -> None:
    """With one candidate for each token, a high temperature gives the greedy text; without the bound it does not."""
    hot = SamplingSettings(temperature=5, top_p=1, top_k=0, max_new_tokens=6, seed=3)
    greedy = talking.answer(STORY, GREEDY)[0]
    assert talking.answer(STORY, msgspec.structs.replace(hot, top_k=1))[0] == greedy
    assert talking.answer(STORY, hot)[0] != greedy


def test_continuing_is_refused_where_it_would_begin_anew(talking: ServerRig) -> None:
    end = talking.answer(FRANCE, GREEDY, resume=p.Partial(text="The capital of"))[1]
    assert end.error.code == "server-cannot"


def test_biased_texts_are_banned_or_refused(real: RealServer, talking: ServerRig) -> None:
    whole = talking.answer(STORY, GREEDY)[0]
    first = whole.split()[0]
    end = talking.answer(STORY, msgspec.structs.replace(GREEDY, logit_bias={first: -100}))[1]
    if real.kind == "transformers":
        assert end.error.code == "sampling-rejected"
    else:
        assert isinstance(end, p.Finished)
        assert not talking.text(end.turn).startswith(first)
