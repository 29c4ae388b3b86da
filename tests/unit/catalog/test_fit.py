"""Predictions for a Llama 3 8B by the code that allocates, and what they are compared with."""

from __future__ import annotations

import pytest

from quantchat.catalog import fit
from quantchat.catalog.attention import read_attention
from quantchat.catalog.fit import Judgement, Prediction, Setting, judge, largest_context, predict
from quantchat.catalog.shape import read_shape
from quantchat.domain.kernel_table import TABLE
from quantchat.domain.memory import GIB, MIB
from quantchat.domain.models import ModelInfo, QuantSpec
from unit.catalog.real_shapes import DEEPSEEK_V2_LITE, LLAMA_3_8B, QWEN3_NEXT_80B, llama_tensors, weighed

GPTQ = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq")
KERNELS = {kernel.name: kernel for kernel in TABLE}
MARLIN = Setting(device="cuda", kernel=KERNELS["gptq_marlin"])
EXLLAMA = Setting(device="cuda", kernel=KERNELS["gptq_exllama_v2"])
ATEN = Setting(kernel=KERNELS["gptq_torch_aten"])
WEIGHTS = 5_700_591_616
"""Of Llama 3 8B with Marlin: 32 x (109,051,904 + 2 x 1,703,936 + 16,384) + 2 x (2 x 128,256 x 4,096 + 4,096)."""


def described(config: dict[str, object], **more: object) -> ModelInfo:
    shape = {"shape": read_shape(config), "attention": read_attention(config)}
    return ModelInfo(path="/m", name="m", context_window=8192, **shape | more)


@pytest.fixture(scope="module")
def llama() -> ModelInfo:
    return described(LLAMA_3_8B, quant=GPTQ, weights=weighed(llama_tensors(LLAMA_3_8B, bits=4), GPTQ, LLAMA_3_8B))


def test_a_load_on_a_gpu(llama: ModelInfo) -> None:
    """Weights, the allocator's loss, the buffers of the shortest captured step; the context is the driver's."""
    found = predict(llama, MARLIN)
    assert found.weights == WEIGHTS
    first = 1024 * 131_072 + 128_256 * 2 + fit.GRAPH_POOL
    assert found.predicted == WEIGHTS + int(WEIGHTS * fit.ALLOCATOR_SHARE) + first
    assert found.runtime == fit.CUDA_CONTEXT


def test_a_load_on_the_cpu_holds_the_process_too(llama: ModelInfo) -> None:
    found = predict(llama, ATEN)
    entries = 128_256 * fit.TOKENIZER_ENTRY
    assert found.predicted - found.weights == fit.CPU_RUNTIME + fit.LOADING + fit.OPTIMUM + entries
    dense = predict(llama, Setting())
    assert dense.predicted - dense.weights == fit.CPU_RUNTIME + fit.LOADING + entries
    assert predict(llama, Setting(kernel=ATEN.kernel, runtime=GIB)).predicted - found.predicted == GIB - fit.CPU_RUNTIME


def test_a_cache_grows_by_a_quarter_with_the_answers_first_token(llama: ModelInfo) -> None:
    assert predict(llama, ATEN, 4096).cache == 131_072 * 5120
    assert predict(llama, ATEN, 2048).cache == 131_072 * 2560


def test_a_long_prompt_is_worst_before_that(llama: ModelInfo) -> None:
    """On a GPU the keys of a layer are repeated for each head, and the chunk's results are large."""
    found = predict(llama, MARLIN, 8192)
    repeated, mask, heads = 2 * 8192 * 4096 * 2, 2048 * 8192 * 3, 2048 * (3 * 4096 + 2 * 1024) * 2
    assert found.cache == 131_072 * 8192
    assert found.passes == repeated + mask + heads + 2048 * 4096 * 12 + 128_256 * (9 * 2 + 6 * 4)


def test_the_captured_steps_buffers_double(llama: ModelInfo) -> None:
    def buffers(tokens: int) -> int:
        return predict(llama, MARLIN, tokens).buffers

    assert buffers(500) == 0
    assert buffers(1500) == buffers(2047) == 1024 * 131_072
    assert buffers(2048) == 3 * 1024 * 131_072
    assert buffers(8192) == 7 * 1024 * 131_072
    assert predict(llama, EXLLAMA, 4096).buffers == 0
    assert predict(llama, Setting(device="cuda", kernel=MARLIN.kernel, graphs=False), 4096).buffers == 0


def test_states_that_cannot_be_captured_need_no_buffers() -> None:
    assert predict(described(QWEN3_NEXT_80B), Setting(device="cuda"), 4096).buffers == 0


def test_mla_expands_the_whole_cache_in_each_pass() -> None:
    model = described(DEEPSEEK_V2_LITE)
    long, short = (predict(model, Setting(device="cuda"), tokens) for tokens in (8192, 4096))
    assert long.passes - short.passes == 4096 * (7168 * 2 + 2048 * 3)


def test_exllama_keeps_its_scratch(llama: ModelInfo) -> None:
    more = predict(llama, EXLLAMA).workspace - predict(llama, MARLIN).workspace
    assert more > 900 * MIB - 200 * MIB


def test_an_earlier_load_corrects_what_is_held_and_nothing_else(llama: ModelInfo) -> None:
    plain, known = predict(llama, MARLIN), predict(llama, Setting(device="cuda", kernel=MARLIN.kernel, loaded=6 * GIB))
    assert known.predicted == plain.predicted
    assert known.needed - plain.needed == 6 * GIB - plain.predicted


PREDICTION = Prediction(device="cuda", runtime=1, weights=60, workspace=4, buffers=20, cache=20, passes=5)


@pytest.mark.parametrize(
    ("free", "judgement"),
    [
        (89, Judgement(fit="too big", needed=90, free=89, missing=1)),
        (90, Judgement(fit="tight", needed=90, free=90)),
        (105, Judgement(fit="tight", needed=90, free=105)),
        (110, Judgement(fit="fits", needed=90, free=110)),
    ],
)
def test_judgements(free: int, judgement: Judgement) -> None:
    assert judge(PREDICTION, free) == judgement


def test_tight_is_also_what_leaves_no_room_for_the_fast_path() -> None:
    roomy = Prediction(device="cuda", runtime=1, weights=60, workspace=4, buffers=60, cache=20, passes=5)
    assert judge(roomy, 120).fit == "tight"
    assert judge(roomy, 150).fit == "fits"


@pytest.mark.parametrize("setting", [MARLIN, EXLLAMA, ATEN], ids=["marlin", "exllama", "aten"])
def test_the_largest_context_is_the_last_that_fits(llama: ModelInfo, setting: Setting) -> None:
    free = predict(llama, setting, 3000).needed
    found = largest_context(llama, setting, free)
    assert found >= 3000
    assert predict(llama, setting, found).needed <= free < predict(llama, setting, found + 1).needed


def test_fewer_bits_in_the_cache_give_a_longer_context(llama: ModelInfo) -> None:
    free = predict(llama, MARLIN, 2500).needed
    assert largest_context(llama, MARLIN, free) < largest_context(llama, MARLIN, free, 0.5) <= 8192


def test_no_context_where_the_weights_do_not_fit(llama: ModelInfo) -> None:
    assert largest_context(llama, MARLIN, 4 * GIB) == 0
    assert largest_context(llama, MARLIN, 80 * GIB) == 8192


def test_a_model_that_was_not_read_counts_by_its_files() -> None:
    assert predict(ModelInfo(path="/m", name="m", weight_bytes=7 * GIB), Setting()).weights == 7 * GIB
