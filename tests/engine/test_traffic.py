"""Bytes that a token reads, and the measured copy."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine import zoo
from quantchat.engine import traffic
from quantchat.engine.traffic import token_bytes
from quantchat.errors import Cancelled, JobError

pytestmark = pytest.mark.engine

ROW = 64 * 4
TABLE = zoo.VOCABULARY * ROW


def size(model, mark: str = "") -> int:
    """Bytes of the parameters and buffers whose names hold a mark."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return sum(tensor.numel() * tensor.element_size() for name, tensor in tensors if mark in name)


def test_of_the_embedding_table_one_row_is_read() -> None:
    model = zoo.make("llama")
    assert token_bytes(model) == size(model) - TABLE + ROW


def test_a_tied_table_is_read_once_and_whole() -> None:
    model = zoo.make("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    assert token_bytes(model) == size(model)


@pytest.mark.parametrize("kind", ["olmoe", "gpt_oss"])
def test_only_the_chosen_experts_are_read(kind: str) -> None:
    model = zoo.make(kind)
    experts = size(model, ".experts.")
    assert experts > 0
    assert token_bytes(model) == size(model) - TABLE + ROW - experts // 2


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_every_kind_of_model_has_a_figure(kind: str) -> None:
    model = zoo.make(kind)
    assert 0 < token_bytes(model) <= size(model)


def test_the_copy_is_measured_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(traffic.COPY_BYTES, "cpu", 1024**2)
    loaded = SimpleNamespace(device="cpu", model=zoo.make("llama"))
    steps: list[int] = []
    figures = traffic.figures(loaded, lambda _stage, done, _total: steps.append(done), lambda: False)
    assert figures["copy_bytes_per_second"] > 1024**2
    assert steps == list(range(traffic.ROUNDS))
    with pytest.raises(Cancelled):
        traffic.figures(loaded, lambda *_: None, lambda: True)


def test_without_a_model_it_says_so() -> None:
    with pytest.raises(JobError):
        traffic.figures(None, lambda *_: None, lambda: False)
