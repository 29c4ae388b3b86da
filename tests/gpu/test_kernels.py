"""Every kernel against the dense model that the checkpoint stands for, and the fast path against the ordinary one."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from gpu import checkpoints
from gpu.conftest import DEVICE, RECIPES
from quantchat.domain import kernels
from quantchat.domain.kernel_table import TABLE
from quantchat.engine import capture, graphs, loader, memory
from quantchat.engine import protocol as p
from quantchat.engine.building import is_built
from quantchat.engine.kernels import probe
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.static import Refusal

SLOW_TO_LOAD = "gptq_torch"
"""Compiles its unpacking for up to a minute, at every load."""
PROMPT, ANSWER = 64, 48
KIND = DEVICE.partition(":")[0]
CASES = [
    (name, kernel.name)
    for name, recipe in RECIPES.items()
    for kernel in TABLE
    if (kernel.device, kernel.method) == (KIND, recipe.method) and kernel.name != SLOW_TO_LOAD
]


@pytest.fixture(scope="module")
def right(checkpoint):
    """A function that returns the dense model's logits, on the CPU."""
    known: dict[str, torch.Tensor] = {}

    def get(name: str) -> torch.Tensor:
        if name not in known:
            ids = torch.tensor([checkpoints.tokens(RECIPES[name], PROMPT)], device=DEVICE)
            model = checkpoints.reference(RECIPES[name], DEVICE)
            with torch.inference_mode():
                known[name] = model(ids).logits[0].cpu()
            del model
            memory.give_back()
        return known[name]

    return get


@pytest.fixture(params=CASES, ids="-".join, scope="module")
def case(request, checkpoint):
    """One checkpoint loaded with one kernel; both tests below share the load."""
    name, kernel = request.param
    info = checkpoint(RECIPES[name])
    plan = kernels.plan(info.quant, probe([DEVICE], is_built))
    refused = next((refusal.reason for refusal in plan.refusals if refusal.kernel == kernel), None)
    if refused:
        pytest.skip(f"{kernel}: {refused}")
    loaded = loader.load(p.Load(request="r", model=info, device=DEVICE, kernel=kernel), lambda _: None)
    yield name, loaded
    del loaded
    memory.give_back()


def test_logits_are_those_of_the_dense_model(case, right):
    name, loaded = case
    recipe, expected = RECIPES[name], right(case[0])
    ids = torch.tensor([checkpoints.tokens(recipe, PROMPT)], device=DEVICE)
    with torch.inference_mode():
        logits = loaded.model(ids).logits[0].cpu()
    tolerance = capture.TOLERANCE[logits.dtype]
    assert checkpoints.agreement(expected, logits, tolerance) >= checkpoints.required_agreement(recipe)


def test_the_fast_path_gives_the_tokens_of_the_ordinary_path(case):
    name, loaded = case
    kernel = loaded.report.kernel
    decoder = fast_path(loaded)
    if RECIPES[name].experts or (KIND == "cuda" and kernel in graphs.KERNEL_REFUSALS):
        assert isinstance(decoder, Refusal)
        return
    assert isinstance(decoder, graphs.GraphDecoder), decoder
    held = memory.cuda_bytes()
    with torch.inference_mode():
        compare(loaded.model, decoder, checkpoints.tokens(RECIPES[name], PROMPT))
    decoder.release()
    assert decoder.nbytes == 0
    memory.give_back()
    assert memory.cuda_bytes() <= held


def fast_path(loaded) -> graphs.GraphDecoder | Refusal:
    if KIND == "cuda":
        return graphs.create(loaded.model, loaded.window, loaded.report.kernel)
    return graphs.build(loaded.model, loaded.window, lambda step: step, lambda: 2**40)


def compare(model, decoder, ids) -> None:
    cache, session, new = DynamicCache(config=model.config), SessionCache(model), ids
    model(torch.tensor([ids[:-1]], device=DEVICE), past_key_values=session.cache)
    session.append(ids[:-1])
    assert decoder.attach(session) is None
    token = ids[-1]
    for _ in range(ANSWER):
        expected = model(torch.tensor([new], device=DEVICE), past_key_values=cache).logits[0, -1]
        logits = decoder.step(token)
        assert capture.deviation(expected, logits) <= capture.TOLERANCE[logits.dtype]
        token, found = int(expected.argmax()), int(logits.argmax())
        assert found == token or capture.is_tie(expected, token, found)
        new = [token]
    decoder.detach()
    assert len(session.ids) == session.cache.get_seq_length() == len(ids) - 1 + ANSWER


@pytest.mark.skipif(KIND != "cuda", reason="fills the memory of a GPU")
def test_a_full_card_refuses_the_buffers_with_their_bytes(checkpoint):
    loaded = loader.load(p.Load(request="r", model=checkpoint(RECIPES["plain"]), device=DEVICE), lambda _: None)
    memory.give_back()
    free, _ = torch.cuda.mem_get_info(DEVICE)
    ballast = torch.empty(free - graphs.HEADROOM // 2, dtype=torch.uint8, device=DEVICE)
    refused = fast_path(loaded)
    assert isinstance(refused, Refusal)
    assert "bytes" in refused.reason
    del ballast
    memory.give_back()
    made = fast_path(loaded)
    assert isinstance(made, graphs.GraphDecoder), made
    made.release()
