"""Sampling settings in a server's words; what it does not take is named in ours, never dropped."""

from __future__ import annotations

import json

import msgspec
import pytest

from bad_server import Act, BadServer
from engine.servers.rig import PLAIN, ServerRig
from quantchat.domain.generation import SamplingSettings, resolve_sampling
from quantchat.engine import protocol as p
from quantchat.engine.backends.server.fields import fields_of, unknown_defaults
from quantchat.engine.backends.server.kinds import DIALECTS
from quantchat.errors import GenerationError

ALL = SamplingSettings(
    temperature=0.5,
    top_p=0.9,
    top_k=7,
    min_p=0.1,
    repetition_penalty=1.2,
    presence_penalty=0.3,
    frequency_penalty=0.4,
    seed=11,
)
NOTHING = SamplingSettings(temperature=1, top_p=1, top_k=0)


def test_vllm_is_told_all_that_it_knows_also_what_does_nothing() -> None:
    fields = fields_of(ALL, DIALECTS["vllm"])
    assert fields.values == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "seed": 11,
    }
    neutral = fields_of(NOTHING, DIALECTS["vllm"]).values
    assert (neutral["top_k"], neutral["min_p"], neutral["repetition_penalty"]) == (-1, 0.0, 1.0)


def test_llama_cpp_has_other_names() -> None:
    values = fields_of(ALL, DIALECTS["llama.cpp"]).values
    assert (values["repeat_penalty"], values["typical_p"]) == (1.2, 1.0)
    assert "repetition_penalty" not in values


def test_transformers_takes_most_of_it_as_a_generation_config() -> None:
    settings = msgspec.structs.replace(
        ALL, presence_penalty=0.0, frequency_penalty=0.0, no_repeat_ngram=3, typical_p=0.8
    )
    values = fields_of(settings, DIALECTS["transformers"]).values
    config = json.loads(values.pop("generation_config"))
    assert values == {"temperature": 0.5, "top_p": 0.9, "seed": 11}
    assert config == {
        "do_sample": True,
        "top_k": 7,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
    }


@pytest.mark.parametrize("kind", ["openai", "other"])
def test_a_server_nobody_knows_is_told_only_what_does_something(kind: str) -> None:
    assert fields_of(NOTHING, DIALECTS[kind]).values == {}
    assert fields_of(msgspec.structs.replace(NOTHING, top_p=0.9), DIALECTS[kind]).values == {"top_p": 0.9}


@pytest.mark.parametrize("kind", DIALECTS)
def test_quantchats_own_defaults_are_taken_everywhere(kind: str) -> None:
    settings = resolve_sampling(unknown_defaults(DIALECTS[kind]))
    values = fields_of(settings, DIALECTS[kind]).values
    assert values["temperature"] == 0.7
    expected = {"openai": None, "other": None, "transformers": None}.get(kind, 50)
    assert values.get("top_k") == expected


@pytest.mark.parametrize(
    ("kind", "unknown"),
    [
        ("vllm", {"typical_p": 0.5, "no_repeat_ngram": 3}),
        ("llama.cpp", {"no_repeat_ngram": 3}),
        ("llama-cpp-python", {"typical_p": 0.5}),
        ("transformers", {"presence_penalty": 0.5, "frequency_penalty": 0.5}),
        ("openai", {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}),
        ("other", {"no_repeat_ngram": 2}),
    ],
)
def test_what_a_server_does_not_know_is_refused_by_our_names(kind: str, unknown: dict[str, float]) -> None:
    with pytest.raises(GenerationError) as caught:
        fields_of(msgspec.structs.replace(NOTHING, **unknown), DIALECTS[kind])
    report = caught.value.report
    assert report.code == "sampling-rejected"
    for name in unknown:
        assert name in report.title
        assert f"/set {name} " in report.remedy


def test_greedy_decoding_makes_unknown_settings_harmless() -> None:
    settings = SamplingSettings(temperature=0, top_k=5, min_p=0.1, typical_p=0.5)
    assert fields_of(settings, DIALECTS["openai"]).values == {"temperature": 0}


def test_a_seed_is_drawn_where_it_is_kept_and_told(box: ServerRig, server: BadServer) -> None:
    warm = msgspec.structs.replace(PLAIN, temperature=1.0)
    end = box.answer(sampling=warm)[1]
    assert end.statistics.seed == server.asked()[-1].body["seed"]
    assert box.answer(sampling=PLAIN)[1].statistics.seed is None
    assert "seed" not in server.asked()[-1].body
    with pytest.raises(GenerationError, match="seed"):
        fields_of(msgspec.structs.replace(NOTHING, seed=2**33), DIALECTS["llama.cpp"])


REFUSALS = [
    ("min_p", {"error": {"message": "Unknown field", "param": "min_p"}, "at": "min_p"}, "Unknown parameter: 'min_p'"),
    ("top_k", None, "Unexpected fields in the request: {'top_k'}"),
    ("max_new_tokens", None, "max_tokens must be at least 32"),
    ("temperature", None, "Unsupported value: 'temperature' does not support 0.5 with this model."),
    ("stop", None, "stop is not supported"),
]


@pytest.mark.parametrize(("name", "_body", "words"), REFUSALS)
@pytest.mark.parametrize("form", ["error", "detail", "loc"])
def test_what_a_server_refuses_is_told_by_our_names(box, server, name, _body, words, form) -> None:
    field = {"max_new_tokens": "max_tokens"}.get(name, name)
    bodies = {
        "error": {"error": {"message": words, "type": "BadRequestError"}},
        "detail": {"detail": words},
        "loc": {"detail": [{"loc": ["body", field], "msg": "Extra inputs are not permitted"}]},
    }
    server.will(Act(status=422 if form != "error" else 400, body=json.dumps(bodies[form])))
    end = box.answer(sampling=msgspec.structs.replace(ALL, stop=("x",)))[1]
    assert end.error.code == "sampling-rejected"
    assert end.error.title == f"The server does not take {name}"
    assert f"/set {name} " in end.error.remedy
    assert len(server.asked()) == 1


def test_a_setting_that_was_not_sent_is_not_what_is_refused(box: ServerRig, server: BadServer) -> None:
    words = "The chain of tokens must stop before logit_bias begins."
    server.will(Act(status=400, body=json.dumps({"error": {"message": words}})))
    end = box.answer()[1]
    assert (end.error.code, end.error.detail) == ("server-refused", words)


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_a_model_that_takes_its_own_temperature_alone_and_thinks_first_can_be_used(
    asker: ServerRig, server: BadServer, owner: str
) -> None:
    """As OpenAI's do that think; what the first token is asked with, nobody could take back."""
    server.owner = owner

    def answer(body: dict[str, object]) -> Act:
        if body.get("temperature", 1) != 1:
            words = "Unsupported value: 'temperature' does not support 0 with this model. Only 1 is supported."
        elif "max_completion_tokens" not in body:
            words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        else:
            words = "Could not finish the message because max_tokens or model output limit was reached."
        return Act(status=400, body=json.dumps({"error": {"message": words}}))

    server.answers = answer
    assert isinstance(asker.use(server.url), p.Loaded)


def test_what_nobody_asked_for_is_left_out_where_it_is_refused(box: ServerRig, server: BadServer) -> None:
    words = ["Extra fields: stream_options", "stream_options is unknown", "seed is not allowed"]
    server.will(*[Act(status=400, body=json.dumps({"error": {"message": each}})) for each in words])
    text, end = box.answer(sampling=msgspec.structs.replace(PLAIN, temperature=1.0))
    assert (text[:5], end.statistics.seed) == ("Hello", None)
    options = [request.body.get("stream_options") for request in server.asked()]
    assert options == [
        {"include_usage": True, "continuous_usage_stats": True},
        {"include_usage": True},
        None,
        None,
    ]
    box.answer()
    assert "stream_options" not in server.asked()[-1].body, "it is remembered"


def test_the_newer_name_of_the_limit_is_learned(box: ServerRig, server: BadServer) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.will(Act(status=400, body=json.dumps({"error": {"message": words}})))
    assert box.answer()[1].reason == "stop"
    body = server.asked()[-1].body
    assert (body["max_completion_tokens"], "max_tokens" in body) == (24, False)


def test_biased_texts_become_ids(box: ServerRig, server: BadServer) -> None:
    known = {"yes": [5], "no way": [6, 7]}
    server.pages["/tokenize"] = lambda body: {"tokens": known[body["prompt"]], "count": 1}
    assert box.answer(sampling=msgspec.structs.replace(PLAIN, logit_bias={"yes": -100}))[1].reason == "stop"
    assert server.asked()[-1].body["logit_bias"] == {"5": -100}
    end = box.answer(sampling=msgspec.structs.replace(PLAIN, logit_bias={"no way": 5}))[1]
    assert (end.error.code, end.error.title) == ("sampling-rejected", "The server does not take logit_bias")
    assert "2" in end.error.detail


def test_biased_texts_are_refused_where_tokens_are_not_told(box: ServerRig, server: BadServer) -> None:
    end = box.answer(sampling=msgspec.structs.replace(PLAIN, logit_bias={"yes": -100}))[1]
    assert end.error.code == "sampling-rejected"
    assert server.asked() == []


def test_a_model_that_thinks_is_not_sent_stop_texts(box: ServerRig, server: BadServer) -> None:
    from bad_server import DONE, chunk

    stopping = msgspec.structs.replace(PLAIN, stop=("Four",))
    thought = [chunk(reasoning_content="Four?"), chunk("It is Four."), chunk(None, "stop"), DONE]
    server.will(Act(pieces=thought), Act(pieces=thought))
    for sent in (True, False):
        name = box.start(sampling=stopping)
        assert box.wait(p.Finished, p.Failed).reason == "stop"
        assert (box.thinking(name), box.said(name)) == ("Four?", "It is ")
        assert ("stop" in server.asked()[-1].body) is sent
