"""The random checkpoints of the GPU suite, loaded by every CPU kernel and compared with the dense model they pack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from gpu import checkpoints
from gpu.checkpoints import Recipe
from quantchat.catalog.reader import read_model
from quantchat.domain import kernels
from quantchat.engine import capture, graphs, loader
from quantchat.engine import protocol as p
from quantchat.engine.building import is_built
from quantchat.engine.kernels import probe
from quantchat.engine.static import Refusal

BASE = Recipe("tiny")
ODD = (replace(BASE, name="tiny-asymmetric", sym=False), replace(BASE, name="tiny-column", group_size=128))
RECIPES = {recipe.name: recipe for recipe in (*checkpoints.variants(BASE), *ODD)}
COMPILES_ITSELF = "gptq_torch"
"""Takes up to a minute to load."""
TOLERANCE = capture.TOLERANCE[torch.bfloat16] / 2

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def info_of(folder):
    def info(recipe: Recipe):
        path = folder / recipe.name
        return read_model(path if path.exists() else checkpoints.write(recipe, path))

    return info


def candidates(info) -> list[str]:
    plan = kernels.plan(info.quant, probe(["cpu"], is_built))
    return [kernel.name for kernel in plan.candidates if kernel.name != COMPILES_ITSELF]


def load(info, kernel):
    # Loading changes parameters, which it may not in inference mode.
    with torch.inference_mode(mode=False):
        return loader.load(p.Load(request="r", model=info, device="cpu", kernel=kernel), lambda _: None)


def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("name", RECIPES)
def test_every_kernel_computes_the_dense_model(info_of, name):
    recipe = RECIPES[name]
    info = info_of(recipe)
    assert not info.problems
    assert info.quant.method == recipe.method
    assert (info.quant.bits, info.quant.group_size) == (recipe.bits, recipe.group_size)
    ids = checkpoints.tokens(recipe, 40)
    right = logits_of(checkpoints.reference(recipe), ids)
    other = logits_of(checkpoints.reference(replace(recipe, seed=6)), ids)
    assert checkpoints.agreement(right, other, TOLERANCE) == 0.0
    names = candidates(info)
    assert names
    for kernel in names:
        loaded = load(info, kernel)
        assert loaded.report.kernel == kernel
        logits = logits_of(loaded.model, ids)
        assert checkpoints.agreement(right, logits, TOLERANCE) >= checkpoints.required_agreement(recipe), kernel


@pytest.mark.parametrize("name", [name for name in RECIPES if not RECIPES[name].experts])
def test_the_fast_path_gives_the_tokens_of_packed_weights(info_of, name):
    """The step is watched for waits when the path is built, with the kernels' own operators in it."""
    recipe, info = RECIPES[name], info_of(RECIPES[name])
    ids = checkpoints.tokens(recipe, 30)
    for kernel in candidates(info):
        model = load(info, kernel).model
        decoder = graphs.build(model, 256, lambda step: step, lambda: 2**40, shortest=32)
        assert isinstance(decoder, graphs.GraphDecoder), decoder
        assert_same_until_a_tie(model, decoder, ids)


def assert_same_until_a_tie(model, decoder, ids) -> None:
    from quantchat.engine.kvcache import SessionCache

    cache, session, new = DynamicCache(config=model.config), SessionCache(model), ids
    model(torch.tensor([ids[:-1]]), past_key_values=session.cache)
    session.append(ids[:-1])
    assert decoder.attach(session) is None
    token = ids[-1]
    for _ in range(24):
        expected = model(torch.tensor([new]), past_key_values=cache).logits[0, -1]
        found = int(decoder.step(token).argmax())
        token = int(expected.argmax())
        if found != token:
            assert capture.is_tie(expected, token, found)
            return
        new = [token]


def test_packed_experts_are_refused_for_their_router(info_of):
    info = info_of(RECIPES["tiny-moe"])
    refused = graphs.build(load(info, candidates(info)[0]).model, 256, lambda step: step, lambda: 2**40)
    assert isinstance(refused, Refusal)
    assert "nonzero" in refused.reason


@pytest.mark.parametrize("bits", [4, 8])
def test_words_unpack_to_what_was_packed(bits):
    integers = torch.randint(0, 2**bits, (64, 32), dtype=torch.int32)
    words = checkpoints.pack_rows(integers, bits)
    assert words.shape == (64 * bits // 32, 32)
    parts = [(words >> (bits * place)) & (2**bits - 1) for place in range(32 // bits)]
    assert torch.equal(torch.stack(parts, dim=1).reshape(64, 32), integers)


def test_a_large_recipe_has_the_size_of_a_seven_billion_model():
    weights = sum(columns * rows for _, columns, rows in checkpoints.SEVEN_B.matrices())
    assert 6.5e9 < weights < 7.5e9


def test_the_same_recipe_gives_the_same_weights():
    first, second = (checkpoints.draw(BASE, "model.layers.0.mlp.up_proj", 128, 256, "cpu") for _ in range(2))
    assert torch.equal(first.dense(), second.dense())
    assert not torch.equal(first.dense(), checkpoints.draw(BASE, "other", 128, 256, "cpu").dense())
