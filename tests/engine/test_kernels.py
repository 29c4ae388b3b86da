"""The kernel policy, on machines that are not here. No torch."""

from __future__ import annotations

import pytest

from quantchat.domain.models import QuantSpec
from quantchat.engine.kernels import CPU_EXTENSION, TABLE, Host, plan
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
