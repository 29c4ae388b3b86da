"""Chat templates for a session: found, tried, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantchat.domain.template import CHATML
from quantchat.errors import UsageError
from quantchat.services.chattemplate import checked, own_template, read_template, sample

GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def test_the_models_own_is_found_and_chatml_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": GOOD}))
    assert own_template(str(tmp_path)) == GOOD
    assert own_template(str(tmp_path / "nowhere")) == CHATML
    assert own_template(None) == CHATML
    (tmp_path / "model.gguf").write_bytes(b"no such file")
    assert own_template(str(tmp_path / "model.gguf")) == CHATML


def test_a_good_one_is_taken_as_it_is(tmp_path: Path) -> None:
    assert checked(GOOD, None) == GOOD
    assert checked(CHATML, str(tmp_path)) == CHATML
    file = tmp_path / "own.jinja"
    file.write_text(GOOD)
    assert read_template(str(file), None) == GOOD.removesuffix("\n")
    assert "And of Italy?" in sample(GOOD, None).text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("{% for m in messages %}", "line 1"),
        ("{{ raise_exception('never again') }}", "never again"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out"),
        ("{% for m in messages %}{% for p in m.content %}{{ p['text'] }}{% endfor %}{% endfor %}", "list of parts"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined|no attribute"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}", "longer"),
    ],
)
def test_one_that_cannot_work_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        checked(text, None)
    assert caught.value.report.code == "template"


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError):
            read_template(str(path), None)
