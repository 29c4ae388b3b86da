"""Single sampling values: typed, refused with what is allowed, and told with their source."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.domain.generation import SamplingOverrides, SamplingSettings
from quantchat.domain.presets import SHIPPED, label_of, own_values
from quantchat.domain.sampling import (
    ALIASES,
    MEANINGS,
    Layer,
    allowed,
    find_setting,
    read_value,
    settings_of,
    shown_value,
)
from quantchat.errors import UsageError

NAMES = SamplingOverrides.__struct_fields__


def test_every_value_has_a_meaning_and_says_what_is_allowed() -> None:
    assert set(MEANINGS) == set(NAMES)
    assert set(ALIASES.values()) <= set(NAMES)
    assert all(allowed(name) for name in NAMES)
    assert allowed("top_p") == "a number above 0 to 1"
    assert allowed("top_k") == "a whole number from 0 on"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("temperature", "temperature"),
        ("Temp", "temperature"),
        ("top-p", "top_p"),
        ("max", "max_new_tokens"),
        ("MAX_TOKENS", "max_new_tokens"),
        ("rep", "repetition_penalty"),
        (" stop ", "stop"),
    ],
)
def test_names_are_found_as_people_write_them(typed: str, name: str) -> None:
    assert find_setting(typed) == name


@pytest.mark.parametrize(
    ("typed", "told"),
    [("top", "top_p or top_k"), ("temprature", "temperature"), ("[/x]", "There are"), ("", "There are")],
)
def test_a_name_that_is_none_is_told_with_the_likely_one(typed: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        find_setting(typed)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("temperature", "0.2", 0.2),
        ("temperature", "1", 1.0),
        ("top_k", "40", 40),
        ("seed", "7", 7),
        ("stop", "###", ("###",)),
        ("stop", "two words", ("two words",)),
        ("stop", r'"\n\n", "User:"', ("\n\n", "User:")),
        ("stop", '["a"]', ("a",)),
        ("stop", "[]", ()),
        ("logit_bias", '{"As an AI": -100}', {"As an AI": -100.0}),
        ("top_p", "default", None),
        ("seed", "None", None),
    ],
)
def test_values_are_read_as_they_are_typed(name: str, typed: str, value: object) -> None:
    assert read_value(name, typed) == value


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("temperature", "99"),
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("temperature", "NaN"),
        ("temperature", "warm"),
        ("temperature", ""),
        ("top_k", "1.5"),
        ("top_k", "true"),
        ("top_p", "0"),
        ("seed", "-1"),
        ("seed", str(2**62)),
        ("stop", '["a'),
        ("stop", "[1]"),
        ("logit_bias", '{"": 1}'),
        ("logit_bias", '{"a": 101}'),
        ("logit_bias", "a"),
        ("max_new_tokens", "0"),
        pytest.param("logit_bias", "[" * 10_000, id="deep"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(name: str, typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_value(name, typed)
    assert allowed(name) in str(caught.value)


@given(st.data())
def test_what_is_shown_can_be_typed_again(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["temperature", "top_k", "stop", "logit_bias", "seed"]))
    value = {
        "temperature": st.integers(0, 1000).map(lambda number: number / 100),
        "top_k": st.integers(0, 10**6),
        "stop": st.lists(st.text(), max_size=3).map(tuple),
        "logit_bias": st.dictionaries(st.text(min_size=1), st.integers(-100, 100).map(float), max_size=3),
        "seed": st.integers(0, 2**62 - 1),
    }[name]
    drawn = data.draw(value)
    assert read_value(name, shown_value(drawn)) == drawn


def test_each_value_is_told_with_the_most_specific_layer_that_has_it() -> None:
    layers = [
        Layer("this session", SamplingOverrides(seed=3)),
        Layer("preset x", SamplingOverrides(seed=4, top_k=7)),
        Layer("the model", SamplingOverrides(temperature=0.6)),
    ]
    told = {setting.name: (setting.value, setting.source) for setting in settings_of(layers)}
    assert told["seed"] == (3, "this session")
    assert told["top_k"] == (7, "preset x")
    assert told["temperature"] == (0.6, "the model")
    assert told["top_p"] == (SamplingSettings().top_p, "default")
    assert tuple(told) == NAMES


def test_a_changed_preset_is_marked_and_its_own_values_are_known() -> None:
    exact = SHIPPED["exact"]
    changed = msgspec.structs.replace(exact, seed=5)
    assert label_of("exact", exact, SHIPPED) == "exact"
    assert label_of("exact", changed, SHIPPED) == "exact*"
    assert label_of("", changed, SHIPPED) == "own*"
    assert label_of("", SamplingOverrides(), SHIPPED) == ""
    assert label_of("gone", changed, SHIPPED) == "gone"
    assert own_values("exact", changed, SHIPPED) == SamplingOverrides(seed=5)
    assert own_values("", changed, SHIPPED) == changed
