"""Every folder of the corpus gets the verdict that is written down for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.catalog import packages
from quantchat.catalog.formats import BY_NAME, FORMATS
from quantchat.catalog.gguf import TYPES
from quantchat.catalog.reader import read_model
from unit.catalog.corpus import CASES, CORPUS, build, expectation

CASES_WANTED = 60
RARE = {
    "bitblas", "fouroversix", "fp_quant", "higgs", "metal", "nvfp4", "paroquant", "qqq", "quanto", "quark", "sinq",
    "spqr", "vptq",
}  # fmt: skip
"""Formats that are only named: nothing of theirs is read."""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this may have installed what some formats need."""
    monkeypatch.setattr(packages, "installed", lambda name: None)


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_of_each_folder(tmp_path: Path, case: str) -> None:
    expected = expectation(case)
    model = read_model(build(case, tmp_path))
    assert {
        "method": model.quant.method,
        "bits": model.quant.bits or 0,
        "label": model.quant.label(),
        "kind": model.kind,
        "container": model.container,
        "state": model.verdict.state,
        "problems": [one.code for one in model.problems],
    } == {key: expected[key] for key in ("method", "bits", "label", "kind", "container", "state", "problems")}
    assert model.verdict.install == expected.get("install", "")
    assert model.parameters == expected.get("parameters", model.parameters)
    for one in model.problems:
        assert one.cause
        assert one.remedy
        assert "\n" not in one.cause + one.remedy
    assert model.loadable == (model.verdict.state == "runs" and not model.errors)
    assert model.loadable or model.errors


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= CASES_WANTED


def test_every_format_has_a_folder() -> None:
    seen = {expectation(case)["method"] for case in CASES}
    assert {definition.method for definition in FORMATS} - seen == RARE
    assert all(BY_NAME[method].cannot for method in RARE)


def test_every_gguf_type_is_in_a_file() -> None:
    lines = (CORPUS / "gguf-every-type" / "weights.txt").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("blk.")} == {block.name for block in TYPES.values()}
