"""AWQ's clip search: the bounds of GPTQModel's own, from Gram matrices instead of from each token again."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from quantchat.quantize import clip

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

TOKENS = 512
"""As many as GPTQModel looks at, so that both see the same."""


def processor(group_size: int, sym: bool) -> Any:
    """Make what GPTQModel's method needs of its processor."""
    from gptqmodel.looper.awq_processor import AWQProcessor

    made = AWQProcessor.__new__(AWQProcessor)
    made.qcfg = SimpleNamespace(group_size=group_size, sym=sym, bits=4)
    return made


def matrices(outputs: int, inputs: int) -> tuple[Any, Any]:
    """Make weights with outliers, and features some of which are large, as those of models are."""
    import torch

    generator = torch.Generator().manual_seed(outputs + inputs)
    weight = torch.randn(outputs, inputs, generator=generator) * 0.02
    weight[torch.rand(outputs, inputs, generator=generator) > 0.99] *= 6
    features = torch.randn(TOKENS, inputs, generator=generator)
    return weight, features * torch.exp(torch.randn(inputs, generator=generator))


def errors(weight: Any, features: Any, bounds: Any, one: Any) -> Any:
    """Compute what each group's output errs by with these bounds, in float64."""
    import torch

    groups = weight.reshape(*bounds.shape[:2], -1)
    changed = torch.empty_like(groups)
    one._pseudo_quantize_tensor_into(groups.clamp(-bounds, bounds), changed, abs_max=bounds)
    change = (changed - groups).double()
    inputs = features.reshape(TOKENS, groups.shape[1], -1).double()
    return torch.einsum("tgi,ogi->ogt", inputs, change).square().mean(dim=-1)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(("outputs", "inputs", "group_size"), [(128, 256, 64), (64, 192, 32), (192, 640, -1)])
def test_it_chooses_the_bounds_that_gptqmodel_chooses(outputs: int, inputs: int, group_size: int, sym: bool) -> None:
    weight, features = matrices(outputs, inputs)
    one = processor(group_size, sym)
    theirs = type(one)._compute_best_clip(one, weight, features)
    ours = clip.compute_best_clip(one, weight, features)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert (ours == theirs).float().mean() > 0.99
    # Where they differ, both are as good: the last digits of a sum decided.
    best = errors(weight, features, theirs, one)
    assert (errors(weight, features, ours, one) <= best * (1 + 1e-4)).all()
    assert (ours.squeeze(-1) < weight.reshape(*ours.shape[:2], -1).abs().amax(dim=-1)).any()


def test_a_wide_group_of_as_many_inputs_as_tokens_is_no_gram_matrix() -> None:
    weight, features = matrices(64, 640)
    one = processor(-1, True)
    doubled = features.repeat(2, 1)[:640]
    assert doubled.shape == (640, 640)
    theirs = type(one)._compute_best_clip(one, weight, doubled)
    assert (clip.compute_best_clip(one, weight, doubled) == theirs).float().mean() > 0.99


def test_bounds_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, features = matrices(128, 256)
    whole = clip.compute_best_clip(processor(64, True), weight, features)
    monkeypatch.setattr(clip, "TOKENS", 100)
    monkeypatch.setattr(clip, "ELEMENTS", 5000)
    pieces = clip.compute_best_clip(processor(64, True), weight, features)
    assert (pieces == whole).float().mean() > 0.99


def test_features_that_are_lost_leave_weights_unclipped() -> None:
    weight, features = matrices(64, 128)
    features[3] = float("nan")
    bounds = clip.compute_best_clip(processor(32, True), weight, features)
    assert (bounds == weight.reshape(64, 4, 32).abs().amax(dim=-1, keepdim=True)).all()


def test_gptqmodel_still_has_the_method_that_is_replaced() -> None:
    from gptqmodel.looper.awq_processor import AWQProcessor

    assert tuple(inspect.signature(AWQProcessor._compute_best_clip).parameters) == clip.SIGNATURE
