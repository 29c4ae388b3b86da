"""What the loader could not read is said before the load, from the config and the tensors together."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.catalog.reader import read_model
from quantchat.domain import kernels
from quantchat.domain.kernels import Host
from quantchat.domain.models import ModelInfo
from unit.catalog.model_folders import EMBEDDING, GPTQ_LAYER, LLAMA, make_gptq, make_model

WEIGHT = "model.layers.0.mlp.up_proj"
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
COMPRESSED = {
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
    "format": "pack-quantized",
    "quant_method": "compressed-tensors",
}


def fp8(folder: Path, rows: int, columns: int, scale: tuple[int, ...], config: object = FP8) -> ModelInfo:
    tensors = EMBEDDING | {
        f"{WEIGHT}.weight": ("F8_E4M3", (rows, columns)),
        f"{WEIGHT}.weight_scale_inv": ("F32", scale),
    }
    return read_model(
        make_model(folder, tensors=tensors, files={"config.json": LLAMA | {"quantization_config": config}})
    )


@pytest.mark.parametrize(
    ("rows", "columns", "scale"),
    [(256, 128, (2, 1)), (256, 128, ()), (256, 128, (1,)), (256, 128, (256, 1)), (64, 128, (1, 1)), (64, 256, (1, 2))],
)
def test_fp8_in_whole_blocks_runs(tmp_path: Path, rows: int, columns: int, scale: tuple[int, ...]) -> None:
    assert fp8(tmp_path / "m", rows, columns, scale).loadable


@pytest.mark.parametrize(("rows", "columns", "scale"), [(192, 128, (2, 1)), (128, 320, (1, 3)), (576, 128, (5, 1))])
def test_fp8_in_broken_blocks_is_refused(tmp_path: Path, rows: int, columns: int, scale: tuple[int, ...]) -> None:
    """transformers takes rows over rows of scales for the size of a block: 96 where it is 128."""
    model = fp8(tmp_path / "m", rows, columns, scale)
    expected = f"transformers unpacks whole blocks only, and a matrix of {rows} by {columns} has others"
    assert (model.verdict.state, model.verdict.reason) == ("cannot", expected)
    assert [one.code for one in model.errors] == ["format-cannot-run"]


def test_fp8_with_a_scale_per_block_of_a_row(tmp_path: Path) -> None:
    assert fp8(tmp_path / "m", 192, 128, (192, 4), {"quant_method": "mxfp8", "weight_block_size": [1, 32]}).loadable


def test_old_compressed_tensors_settings_go_to_the_loader(tmp_path: Path) -> None:
    files = {"config.json": LLAMA | {"compression_config": COMPRESSED | {"quant_method": "sparseml"}}}
    model = read_model(make_model(tmp_path / "m", tensors=EMBEDDING, files=files))
    assert model.quant.method == "compressed-tensors"
    assert model.quant.raw == COMPRESSED


def test_settings_that_transformers_finds_are_not_kept_twice(tmp_path: Path) -> None:
    files = {"config.json": LLAMA | {"quantization_config": COMPRESSED}}
    assert read_model(make_model(tmp_path / "m", tensors=EMBEDDING, files=files)).quant.raw == {}


def test_marlin_by_its_method_is_marlin_packed(tmp_path: Path) -> None:
    model = read_model(make_gptq(tmp_path / "m", quant_method="marlin", checkpoint_format=None))
    assert model.quant.checkpoint_format == "marlin"
    assert model.verdict.state == "cannot"


@pytest.mark.parametrize(
    ("tensor", "method", "codes"),
    [
        ("weight_packed", "compressed-tensors", ["quantization-config-missing"]),
        ("codebooks", "aqlm", ["quantization-config-missing"]),
        ("weight_scale_inv", "fp8", []),
        ("Qidxs", "quip", ["format-cannot-run"]),
        ("qweight", "unknown", ["quantization-config-missing"]),
    ],
)
def test_formats_that_only_tensors_tell(tmp_path: Path, tensor: str, method: str, codes: list[str]) -> None:
    layer = GPTQ_LAYER[f"{WEIGHT}.scales"]
    tensors = EMBEDDING | {f"{WEIGHT}.{tensor}": layer}
    model = read_model(make_model(tmp_path / "m", tensors=tensors, files={"config.json": LLAMA}))
    assert model.quant.method == method
    assert [one.code for one in model.errors] == codes


def test_bits_per_module_need_a_kernel_that_takes_them_all(tmp_path: Path) -> None:
    model = read_model(make_gptq(tmp_path / "m", dynamic={"+:.*down_proj": {"bits": 8}, "-:.*head": {}}))
    plan = kernels.plan(model.quant, Host(device="cpu", avx512_bf16=True, compiler=True))
    assert [kernel.name for kernel in plan.candidates] == ["gptq_torch"]
    (refused,) = [one.reason for one in plan.refusals if one.kernel == "gptq_torch_aten"]
    assert refused == "takes 4 bits, some modules of the model have 8"
    on_gpu = kernels.plan(model.quant, Host(device="cuda", capability=(8, 9), compiler=True, nvcc=True))
    assert on_gpu.candidates[0].name == "gptq_marlin"
    assert model.loadable


@pytest.mark.parametrize("dynamic", [[1], {"a": 1}, {"a": {"bits": "8"}}, {"a": {"bits": 9}}, "x"])
def test_odd_rules_for_modules(tmp_path: Path, dynamic: object) -> None:
    model = read_model(make_gptq(tmp_path / "m", dynamic=dynamic))
    assert model.loadable == (dynamic != {"a": {"bits": 9}})
