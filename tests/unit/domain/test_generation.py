from __future__ import annotations

import msgspec
import pytest

from quantchat.domain.generation import SamplingOverrides, SamplingSettings, resolve_sampling


def test_the_most_specific_layer_wins_and_a_table_replaces_a_table():
    session = SamplingOverrides(min_p=0.1, logit_bias={"now": -100})
    settings = SamplingOverrides(min_p=0.2, typical_p=0.9, logit_bias={"then": 5})
    resolved = resolve_sampling(session, settings)
    assert (resolved.min_p, resolved.typical_p, resolved.logit_bias) == (0.1, 0.9, {"now": -100.0})
    assert resolved.no_repeat_ngram == 0


def test_what_was_written_before_these_settings_came_still_reads():
    old = b'{"temperature":0.3,"top_p":0.9,"top_k":5,"repetition_penalty":1.1,"max_new_tokens":9,"seed":null,"stop":[]}'
    settings = msgspec.json.decode(old, type=SamplingSettings)
    assert settings == SamplingSettings(temperature=0.3, top_p=0.9, top_k=5, repetition_penalty=1.1, max_new_tokens=9)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=SamplingSettings) == settings


@pytest.mark.parametrize("kind", [SamplingSettings, SamplingOverrides])
@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("min_p", 1.01, "$.min_p"),
        ("min_p", float("nan"), "$.min_p"),
        ("typical_p", 0.0, "$.typical_p"),
        ("presence_penalty", 2.5, "$.presence_penalty"),
        ("frequency_penalty", -2.5, "$.frequency_penalty"),
        ("no_repeat_ngram", -1, "$.no_repeat_ngram"),
        ("logit_bias", {"word": 100.5}, "$.logit_bias"),
        ("logit_bias", {"word": float("nan")}, "$.logit_bias"),
        ("logit_bias", {"": 1.0}, "$.logit_bias"),
        ("temperature", float("nan"), "$.temperature"),
    ],
)
def test_values_out_of_range_are_refused_by_name(kind, name, value, place):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({name: value}, kind)
    assert place in str(caught.value)
