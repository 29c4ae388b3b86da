"""The kernel table against GPTQModel's own classes: an upgrade that moves a limit fails here."""

from __future__ import annotations

import itertools

import pytest

from quantchat.domain.kernel_table import AMPERE, LEFT_OUT, TABLE, TURING, Kernel
from quantchat.domain.kernels import QUANTIZED_METHODS, Host, refusal
from quantchat.domain.models import QuantSpec

pytestmark = pytest.mark.engine
ELSEWHERE = {"mlx"}
"""Backends of devices that quantchat has no rows for."""
FEATURES = (64, 96, 128, 256, 257, 260, 320)
GROUPS = (-1, 16, 32, 64, 128, 256, 512, 1024)


@pytest.fixture(scope="module")
def classes() -> dict[str, list[type]]:
    """GPTQModel's selectable kernel classes for our methods, by backend name."""
    from quantchat.engine import quiet

    quiet.set_environment()
    with quiet.no_warnings():
        quiet.silence()
        import gptqmodel.utils.importer  # noqa: F401 - it imports every kernel
        from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    found: dict[str, list[type]] = {}
    waiting = [BaseQuantLinear]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        methods = {method.value for method in kind.SUPPORTS_METHODS or ()}
        selectable = kind.SUPPORTS_BACKENDS and kind.SUPPORTS_BACKEND_SELECTION and methods & set(QUANTIZED_METHODS)
        if selectable and kind not in found.setdefault(kind.SUPPORTS_BACKENDS[0].value, []):
            found[kind.SUPPORTS_BACKENDS[0].value].append(kind)
    return {name: kinds for name, kinds in found.items() if name not in ELSEWHERE}


def values(items) -> set[str]:
    return {item.value for item in items}


def test_every_kernel_of_gptqmodel_is_in_the_table_or_left_out_for_a_reason(classes) -> None:
    named = {kernel.name for kernel in TABLE}
    assert not named & set(LEFT_OUT)
    assert set(classes) == named | set(LEFT_OUT)


@pytest.mark.parametrize("kernel", TABLE, ids=lambda kernel: f"{kernel.name}-{kernel.device}")
def test_a_row_says_what_its_class_says(classes, kernel: Kernel) -> None:
    kinds = classes[kernel.name]
    assert set(kernel.formats) == set().union(*(values(kind.SUPPORTS_FORMATS) for kind in kinds))
    for kind in kinds:
        assert kernel.method in values(kind.SUPPORTS_METHODS)
        assert values(kind.SUPPORTS_DEVICES) & {kernel.device, "all"}
        assert set(kernel.bits) == set(kind.SUPPORTS_BITS)
        # The gemv kernel lists -1 and then takes it for columns as short as a group alone.
        assert set(kernel.group_sizes) == set(kind.SUPPORTS_GROUP_SIZE) - ({-1} if kernel.name == "awq_gemv" else set())
        assert set(kernel.sym) == set(kind.SUPPORTS_SYM)
        assert set(kernel.desc_act) == set(kind.SUPPORTS_DESC_ACT)
        assert [kernel.columns] == kind.SUPPORTS_IN_FEATURES_DIVISIBLE_BY
        assert [kernel.rows] == kind.SUPPORTS_OUT_FEATURES_DIVISIBLE_BY
        assert kernel.pads == kind.SUPPORTS_AUTO_PADDING
        assert set(kernel.dtypes) == {str(dtype).removeprefix("torch.") for dtype in kind.SUPPORTS_DTYPES}


@pytest.mark.parametrize("kernel", TABLE, ids=lambda kernel: f"{kernel.name}-{kernel.device}")
def test_a_row_refuses_what_its_class_refuses(classes, monkeypatch, kernel: Kernel) -> None:
    import torch

    kind = classes[kernel.name][0]
    monkeypatch.setattr(kind, "cached_validate_once", classmethod(lambda _cls: (True, None)))
    packing = next(name for name in kernel.formats if name in ("gptq", "gemm", "gemv", "gemv_fast"))
    capability = kernel.only[0] if kernel.only else (9, 0)
    host = Host(device=kernel.device, capability=capability, avx512_bf16=True, compiler=True, nvcc=True, offline=False)
    differences = []
    for bits, group, sym, desc_act in itertools.product(kernel.bits, GROUPS, (True, False), (True, False)):
        for columns, rows in itertools.product(FEATURES, FEATURES):
            # A group that is the whole column is allowed to be of any size; models have one group size for all columns.
            if group in (columns, -1) and group not in kernel.group_sizes:
                continue
            spec = QuantSpec(
                method=kernel.method,
                bits=bits,
                group_size=group,
                sym=sym,
                desc_act=desc_act,
                checkpoint_format=packing,
            )
            verdict, why = kind.validate(
                bits=bits,
                group_size=group,
                sym=sym,
                desc_act=desc_act,
                in_features=columns,
                out_features=rows,
                pack_dtype=torch.int16 if packing == "gemv_fast" else torch.int32,
                dtype=getattr(torch, kernel.dtypes[0]),
            )
            ours = refusal(kernel, spec, host, {(columns, rows)})
            if verdict != (ours is None):
                differences.append((bits, group, sym, desc_act, columns, rows, verdict, why, ours))
    assert not differences, differences[:5]


def test_compute_capabilities(classes) -> None:
    from gptqmodel.nn_modules.qlinear import marlin, marlin_awq
    from gptqmodel.utils import machete, swordfish

    rows = {kernel.name: kernel for kernel in TABLE}
    assert rows["gptq_marlin"].capability == marlin._MARLIN_MIN_CAPABILITY == TURING
    assert rows["awq_marlin"].capability == marlin_awq._AWQ_MARLIN_MIN_CAPABILITY == AMPERE
    exact, _, fallback = swordfish._SWORDFISH_SUPPORTED_CAPABILITIES
    for method in QUANTIZED_METHODS:
        assert rows[f"{method}_machete"].only == (machete._MACHETE_REQUIRED_COMPUTE_CAPABILITY,)
        assert set(rows[f"{method}_swordfish"].only) == exact | fallback


def test_extensions_are_known_to_gptqmodel(classes) -> None:
    from gptqmodel import extension

    wanted = {kernel.extension for kernel in TABLE if kernel.extension}
    assert wanted <= set(extension.available_extensions())


def test_names_that_transformers_knows() -> None:
    from transformers.utils.quantization_config import AwqBackend

    known = {backend.value for backend in AwqBackend}
    for kernel in TABLE:
        if kernel.method == "awq" and kernel.transformers_name is not None:
            assert kernel.transformers_name in known
