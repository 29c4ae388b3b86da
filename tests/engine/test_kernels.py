"""The kernel policy, on machines that are not here. No torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from quantchat.domain.kernel_table import CPU_EXTENSION, TABLE
from quantchat.domain.kernels import Host, plan, preferred_dtype, slow_warning, wished
from quantchat.domain.loading import KernelRefusal
from quantchat.domain.models import QuantSpec
from quantchat.engine import quiet
from quantchat.errors import KernelError

GPTQ = QuantSpec(method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq")
AWQ = QuantSpec(method="awq", bits=4, group_size=128, checkpoint_format="gemm")
SERVER = Host(device="cpu", avx512_bf16=True, compiler=True)
HOPPER = Host(device="cuda", capability=(9, 0), compiler=True, nvcc=True)


def variant(spec: QuantSpec, **changes: object) -> QuantSpec:
    return QuantSpec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | changes)


def with_(host: Host, **changes: object) -> Host:
    return Host(**{name: getattr(host, name) for name in host.__struct_fields__} | changes)


@pytest.mark.parametrize(
    ("spec", "host", "first"),
    [
        (GPTQ, SERVER, "gptq_torch_cpu_avx512"),
        (GPTQ, with_(SERVER, avx512_bf16=False), "gptq_torch_aten"),
        (GPTQ, with_(SERVER, compiler=False), "gptq_torch_aten"),
        (GPTQ, with_(SERVER, compiler=False, built=frozenset({CPU_EXTENSION})), "gptq_torch_cpu_avx512"),
        (variant(GPTQ, bits=8), SERVER, "gptq_torch_int8"),
        (variant(GPTQ, bits=3), SERVER, "gptq_torch"),
        (variant(GPTQ, group_size=-1), SERVER, "gptq_torch"),
        (AWQ, SERVER, "awq_torch_cpu_avx512"),
        (AWQ, with_(SERVER, avx512_bf16=False), "awq_torch_aten"),
        (GPTQ, HOPPER, "gptq_marlin"),
        (GPTQ, with_(HOPPER, offline=False), "gptq_machete"),
        (GPTQ, with_(HOPPER, capability=(10, 0), offline=False), "gptq_swordfish"),
        (GPTQ, with_(HOPPER, capability=(12, 0), offline=False), "gptq_marlin"),
        (variant(GPTQ, bits=8, desc_act=True), with_(HOPPER, capability=(10, 3), offline=False), "gptq_marlin"),
        (GPTQ, with_(HOPPER, capability=(7, 5)), "gptq_marlin"),
        (GPTQ, with_(HOPPER, built=frozenset({"machete"})), "gptq_machete"),
        (GPTQ, with_(HOPPER, capability=(8, 6)), "gptq_marlin"),
        (variant(GPTQ, sym=False), with_(HOPPER, capability=(8, 6)), "gptq_exllama_v2"),
        (GPTQ, with_(HOPPER, capability=(7, 0)), "gptq_exllama_v2"),
        (GPTQ, with_(HOPPER, nvcc=False), "gptq_triton"),
        (GPTQ, with_(HOPPER, nvcc=False, compiler=False), "gptq_torch"),
        (variant(GPTQ, bits=3), HOPPER, "gptq_torch"),
        (variant(AWQ, checkpoint_format="gemv"), HOPPER, "awq_gemv"),
        (variant(AWQ, checkpoint_format="gemv_fast"), HOPPER, "awq_gemv_fast"),
        (AWQ, with_(HOPPER, capability=(8, 0)), "awq_marlin"),
        (AWQ, with_(HOPPER, capability=(7, 5)), "awq_exllama_v2"),
        (variant(AWQ, checkpoint_format="marlin"), with_(HOPPER, capability=(8, 9)), "awq_marlin"),
        (variant(GPTQ, checkpoint_format="gptq_p"), HOPPER, "gptq_torch"),
    ],
)
def test_first_candidate(spec: QuantSpec, host: Host, first: str) -> None:
    assert plan(spec, host).choose(None).name == first


def test_refusals_ahead_of_the_choice_are_explained() -> None:
    found = plan(GPTQ, with_(SERVER, avx512_bf16=False))
    (refusal,) = found.ahead_of(found.choose(None).name)
    assert refusal.kernel == "gptq_torch_cpu_avx512"
    assert "AVX-512" in refusal.reason


@pytest.mark.parametrize("packing", ["gemv", "gemv_fast", "llm-awq"])
def test_gemv_formats_are_refused_on_the_cpu(packing: str) -> None:
    with pytest.raises(KernelError, match=packing):
        plan(variant(AWQ, checkpoint_format=packing), SERVER).choose(None)


def test_candidates_follow_each_other_and_end() -> None:
    found = plan(GPTQ, SERVER)
    assert found.after("gptq_torch_cpu_avx512") == "gptq_torch_aten"
    assert found.after("gptq_torch_aten") == "gptq_torch"
    assert found.after("gptq_torch") is None


def test_a_kernel_of_another_device_is_refused_and_the_first_candidate_follows() -> None:
    found = plan(GPTQ, SERVER)
    with pytest.raises(KernelError, match="gptq_marlin"):
        found.choose("gptq_marlin")
    assert found.after("gptq_marlin") == "gptq_torch_cpu_avx512"


def test_only_the_last_resort_is_slow() -> None:
    for device in ("cpu", "cuda"):
        for method in ("gptq", "awq"):
            rows = [kernel for kernel in TABLE if (kernel.device, kernel.method) == (device, method)]
            assert len({kernel.name for kernel in rows}) == len(rows)
            general = [kernel for kernel in rows if "gemv" not in kernel.name]
            assert [kernel.slow for kernel in general] == [False] * (len(general) - 1) + [True]


def reason(spec: QuantSpec, host: Host, kernel: str, matrices=()) -> KernelRefusal:
    return next(refusal for refusal in plan(spec, host, matrices).refusals if refusal.kernel == kernel)


@pytest.mark.parametrize(
    ("spec", "host", "kernel", "words", "remedy"),
    [
        (GPTQ, with_(HOPPER, nvcc=False), "gptq_marlin", "no nvcc", "CUDA toolkit"),
        (GPTQ, with_(HOPPER, compiler=False), "gptq_marlin", "no C++ compiler", "ninja"),
        (GPTQ, with_(HOPPER, compiler=False), "gptq_triton", "no C compiler", "C compiler"),
        (GPTQ, HOPPER, "gptq_machete", "sources would be downloaded", "GPTQMODEL_OFFLINE=0"),
        (GPTQ, with_(HOPPER, capability=(7, 0)), "gptq_marlin", "7.5, this GPU has 7.0", ""),
        (GPTQ, with_(HOPPER, capability=(8, 6)), "gptq_machete", "9.0 alone, this GPU has 8.6", ""),
        (variant(GPTQ, sym=False), HOPPER, "gptq_marlin", "symmetric", ""),
        (variant(GPTQ, bits=3), HOPPER, "gptq_exllama_v2", "takes 4 bits, the model has 3", ""),
        (variant(GPTQ, group_size=-1), SERVER, "gptq_torch_aten", "one group per column", ""),
        (variant(AWQ, desc_act=True), with_(HOPPER, offline=False), "awq_machete", "act-order", ""),
        (GPTQ, SERVER.__class__(device="cpu"), "gptq_torch_cpu_avx512", "AVX-512", ""),
    ],
)
def test_refusals_say_why_and_what_to_do(spec: QuantSpec, host: Host, kernel: str, words: str, remedy: str) -> None:
    found = reason(spec, host, kernel)
    assert words in found.reason
    assert remedy in found.remedy
    assert bool(found.remedy) == bool(remedy)


def test_matrices_that_a_kernel_cannot_cut_are_named() -> None:
    hopper = with_(HOPPER, offline=False)
    assert plan(GPTQ, hopper, {(4096, 4096)}).choose(None).name == "gptq_machete"
    found = plan(GPTQ, hopper, {(4096, 4096), (4096, 4000)})
    assert found.choose(None).name == "gptq_marlin"
    assert "4096 and 4000" in reason(GPTQ, hopper, "gptq_machete", {(4096, 4096), (4096, 4000)}).reason


def test_what_failed_is_not_tried_again_and_says_how() -> None:
    failed = KernelRefusal("gptq_torch_cpu_avx512", "failed at run time: no numbers")
    found = plan(GPTQ, SERVER, failed=[failed])
    chosen = found.choose(None)
    assert chosen.name == "gptq_torch_aten"
    assert found.ahead_of(chosen.name) == (failed,)


def test_when_every_candidate_failed_the_error_tells_all() -> None:
    everything = [KernelRefusal(kernel.name, f"broke {n}") for n, kernel in enumerate(TABLE)]
    with pytest.raises(KernelError) as caught:
        plan(GPTQ, SERVER, failed=everything).choose(None)
    for kernel in plan(GPTQ, SERVER).candidates:
        assert f"{kernel.name}: broke" in str(caught.value)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(KernelError, match="Those that can: gptq_torch_cpu_avx512, gptq_torch_aten, gptq_torch"):
        plan(GPTQ, SERVER).choose("gptq_fast")


def test_a_kernel_may_be_named_without_its_method() -> None:
    assert plan(GPTQ, HOPPER).choose("exllama_v2").name == "gptq_exllama_v2"
    assert plan(AWQ, HOPPER).choose("exllama_v2").name == "awq_exllama_v2"


def test_a_wish_for_models_of_another_method_is_no_wish() -> None:
    assert wished("gptq_marlin", "awq") is None
    assert wished("gptq_marlin", "none") is None
    assert wished("gptq_marlin", "gptq") == "gptq_marlin"
    assert wished("marlin", "awq") == "marlin"
    assert wished("nonsense", "gptq") == "nonsense"


def test_the_slow_kernel_is_a_warning_with_the_remedy_that_fits() -> None:
    without_tools = plan(GPTQ, with_(HOPPER, nvcc=False, compiler=False))
    chosen = without_tools.choose(None)
    warning = slow_warning(chosen, without_tools.ahead_of(chosen.name))
    assert "gptq_marlin: is compiled at first use, and there is no C++ compiler" in warning
    assert "apt install g++" in warning
    three_bits = plan(variant(GPTQ, bits=3), HOPPER)
    chosen = three_bits.choose(None)
    assert "A 4-bit GPTQ or AWQ version" in slow_warning(chosen, three_bits.ahead_of(chosen.name))


def test_dtypes_follow_kernel_and_card() -> None:
    marlin = plan(GPTQ, HOPPER).choose("gptq_marlin")
    assert preferred_dtype(marlin, HOPPER) == "float16"
    assert preferred_dtype(None, HOPPER) == "bfloat16"
    assert preferred_dtype(None, with_(HOPPER, capability=(7, 5))) == "float16"
    assert preferred_dtype(None, SERVER) == "bfloat16"


def test_ninja_beside_the_interpreter_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as `/venv/bin/quantchat`, without activating the environment."""
    for name in quiet.ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, quiet.ENVIRONMENT[name]))
    monkeypatch.setenv("PATH", "/usr/bin")
    quiet.set_environment()
    quiet.set_environment()
    assert os.environ["PATH"].split(os.pathsep) == ["/usr/bin", str(Path(sys.executable).parent)]


def test_every_row_takes_the_dtype_that_a_load_gives_it() -> None:
    for kernel in TABLE:
        assert preferred_dtype(kernel, with_(SERVER, device=kernel.device)) in kernel.dtypes
