"""Folders as real repositories have them are recognised for what they are."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from quantchat.catalog.packages import versions
from quantchat.catalog.reader import read_model
from quantchat.domain.models import QuantSpec, Shape
from unit.catalog.model_folders import (
    AUTOAWQ_CONFIG,
    AUTOGPTQ_CONFIG,
    AWQ_CONFIG,
    AWQ_LAYER,
    EMBEDDING,
    GPTQ_CONFIG,
    GPTQ_LAYER,
    LLAMA,
    PARAMETERS,
    make_dense,
    make_gptq,
    make_model,
    make_sharded,
    tensor_bytes,
    write_json,
    write_safetensors,
)

UP = "model.layers.0.mlp.up_proj"


def autogptq(folder: Path) -> Path:
    files = {"config.json": LLAMA, "quantize_config.json": AUTOGPTQ_CONFIG}
    return make_model(folder, tensors=EMBEDDING | GPTQ_LAYER, files=files, weights="gptq_model-4bit-128g.safetensors")


def gptqmodel(folder: Path) -> Path:
    """GPTQModel writes the same config twice."""
    write = make_gptq(folder)
    write_json(folder / "quantize_config.json", GPTQ_CONFIG)
    return write


def autoawq(folder: Path) -> Path:
    files = {"config.json": LLAMA, "quant_config.json": AUTOAWQ_CONFIG}
    return make_model(folder, tensors=EMBEDDING | AWQ_LAYER, files=files)


def modern_awq(folder: Path) -> Path:
    config = LLAMA | {"quantization_config": AWQ_CONFIG}
    return make_model(folder, tensors=EMBEDDING | AWQ_LAYER, files={"config.json": config})


REAL: dict[str, tuple[Callable[[Path], Path], QuantSpec, str]] = {
    "gptq in config.json": (
        make_gptq,
        QuantSpec(
            method="gptq",
            bits=4,
            group_size=128,
            desc_act=False,
            sym=True,
            checkpoint_format="gptq",
            source="config.json",
            raw=GPTQ_CONFIG,
        ),
        "GPTQ 4b g128",
    ),
    "gptqmodel": (
        gptqmodel,
        QuantSpec(
            method="gptq",
            bits=4,
            group_size=128,
            desc_act=False,
            sym=True,
            checkpoint_format="gptq",
            source="config.json",
            raw=GPTQ_CONFIG,
        ),
        "GPTQ 4b g128",
    ),
    "autogptq": (
        autogptq,
        QuantSpec(
            method="gptq",
            bits=4,
            group_size=128,
            desc_act=True,
            sym=True,
            checkpoint_format="gptq",
            source="quantize_config.json",
            raw=AUTOGPTQ_CONFIG | {"quant_method": "gptq", "checkpoint_format": "gptq", "lm_head": False},
        ),
        "GPTQ 4b g128",
    ),
    "autoawq": (
        autoawq,
        QuantSpec(
            method="awq",
            bits=4,
            group_size=128,
            checkpoint_format="gemm",
            source="quant_config.json",
            raw={
                "quant_method": "awq",
                "bits": 4,
                "group_size": 128,
                "zero_point": True,
                "version": "gemm",
                "lm_head": False,
            },
        ),
        "AWQ 4b g128",
    ),
    "awq in config.json": (
        modern_awq,
        QuantSpec(
            method="awq",
            bits=4,
            group_size=128,
            checkpoint_format="gemm",
            source="config.json",
            raw=AWQ_CONFIG | {"lm_head": False},
        ),
        "AWQ 4b g128",
    ),
    "dense": (make_dense, QuantSpec(method="none"), "unquantized"),
    "sharded": (make_sharded, QuantSpec(method="none"), "unquantized"),
}


@pytest.mark.parametrize("kind", REAL)
def test_real_folders(tmp_path: Path, kind: str) -> None:
    make, expected, label = REAL[kind]
    folder = make(tmp_path / "TheModel-7B")
    model = read_model(folder, root=str(tmp_path))
    assert model.problems == ()
    assert model.quant == expected
    assert model.quant.label() == label
    assert (model.name, model.path, model.root) == ("TheModel-7B", str(folder), str(tmp_path))
    assert (model.architecture, model.model_type) == ("LlamaForCausalLM", "llama")
    assert model.parameters == PARAMETERS
    assert model.context_window == 2048
    assert model.has_chat_template
    assert model.disk_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert msgspec.json.decode(msgspec.json.encode(model), type=type(model)) == model


def test_weight_bytes_are_the_sum_of_the_tensors(tmp_path: Path) -> None:
    assert read_model(make_gptq(tmp_path / "m")).weight_bytes == tensor_bytes(EMBEDDING | GPTQ_LAYER)


def test_shape_of_the_network(tmp_path: Path) -> None:
    shape = read_model(make_gptq(tmp_path / "m")).shape
    assert shape == Shape(layers=1, hidden_size=64, attention_heads=8, kv_heads=4, head_size=8, vocabulary=320)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"group_size": -1, "sym": False}, "GPTQ 4b column"),
        ({"bits": 8, "checkpoint_format": "gptq_v2"}, "GPTQ 8b g128"),
        ({"group_size": 32, "desc_act": True}, "GPTQ 4b g32"),
        ({"quant_method": None, "method": "GPTQ"}, "GPTQ 4b g128"),
    ],
)
def test_variants_of_gptq(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    folder = make_gptq(tmp_path / "m", **changes)
    groups = 2 if changes.get("group_size") == 32 else 1
    packed = 16 if changes.get("bits") == 8 else 8
    layer = GPTQ_LAYER | {f"{UP}.qweight": ("I32", (packed, 128)), f"{UP}.scales": ("F16", (groups, 128))}
    write_safetensors(folder / "model.safetensors", EMBEDDING | layer)
    model = read_model(folder)
    assert model.loadable
    assert model.quant.label() == expected
    assert model.quant.raw["quant_method"] == "gptq"
    for name in ("group_size", "sym", "desc_act", "checkpoint_format"):
        wanted = (GPTQ_CONFIG | changes)[name]
        assert getattr(model.quant, name) == model.quant.raw[name] == wanted


def test_per_module_bits_and_a_quantized_head(tmp_path: Path) -> None:
    rules = {r"+:.*up_proj.*": {"bits": 8}}
    model = read_model(make_gptq(tmp_path / "m", dynamic=rules, lm_head=True))
    assert model.quant.dynamic
    assert model.quant.lm_head
    assert model.quant.raw["dynamic"] == rules


def test_weights_are_counted_by_inputs_where_bits_differ_per_module(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "m", dynamic={"+:.*": {"bits": 8}})
    eight_bit = GPTQ_LAYER | {"model.layers.0.mlp.up_proj.qweight": ("I32", (16, 128))}
    write_safetensors(folder / "model.safetensors", EMBEDDING | eight_bit)
    assert read_model(folder).parameters == PARAMETERS


def test_old_marlin_folders_name_their_packing(tmp_path: Path) -> None:
    assert read_model(make_gptq(tmp_path / "m", is_marlin_format=True)).quant.checkpoint_format == "marlin"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (
            {
                "quantization_config": {
                    "quant_method": "hqq",
                    "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
                }
            },
            "HQQ 4b g64",
        ),
        ({"quantization_config": {"quant_method": "exl2", "bits": 4.65}}, "EXL2"),
        (
            {"quantization_config": {"quant_method": "intel/auto-round", "bits": 4, "group_size": 128}},
            "AUTO-ROUND 4b g128",
        ),
        ({"quantization": {"bits": 4, "group_size": 64}}, "MLX 4b g64"),
        (
            {"quantization": {"bits": 4, "group_size": 64}, "quantization_config": {"bits": 4, "group_size": 64}},
            "MLX 4b g64",
        ),
        ({"text_config": {"quantization_config": {"quant_method": "fbgemm_fp8"}}}, "FBGEMM_FP8 8b"),
    ],
)
def test_formats_that_cannot_run_yet_are_named(tmp_path: Path, config: dict[str, object], label: str) -> None:
    model = read_model(make_dense(tmp_path / "m", **config))
    assert model.quant.label() == label
    (problem,) = model.errors
    assert problem.code == "format-cannot-run"
    assert model.verdict.state == "cannot"
    assert f"cannot run here: {model.verdict.reason}" in problem.cause
    assert problem.remedy


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, "pip install 'bitsandbytes>=0.46.1'"),
        ({"compression_config": {"config_groups": {}}}, "pip install 'compressed-tensors>=0.15.0'"),
    ],
)
def test_formats_that_need_a_package_say_which(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, object], command: str
) -> None:
    folder = make_dense(tmp_path / "m", **config)
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    versions.cache_clear()
    model = read_model(folder)
    assert (model.verdict.state, model.verdict.install) == ("with", command)
    assert [(one.code, one.remedy) for one in model.errors] == [("package-missing", f"Run: {command}")]
    for version, state in (("0.1", "with"), ("1.0", "runs")):
        name = command.split("'")[1].partition(">")[0]
        write_distribution(site, name, version)
        versions.cache_clear()
        assert read_model(folder).verdict.state == state
    versions.cache_clear()


def write_distribution(site: Path, name: str, version: str) -> None:
    """What pip leaves of a package: its metadata, here without the package."""
    shutil.rmtree(site, ignore_errors=True)
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    importlib.invalidate_caches()


def test_a_method_that_nobody_knows(tmp_path: Path) -> None:
    model = read_model(make_dense(tmp_path / "m", quantization_config={"quant_method": "zipped"}))
    assert [problem.cause for problem in model.errors] == ["Its quantization method `zipped` is not known here."]


def test_a_multimodal_config_nests_its_text_model(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "m")
    write_json(folder / "config.json", {"model_type": "gemma3", "text_config": LLAMA | {"model_type": "gemma3_text"}})
    model = read_model(folder)
    assert (model.model_type, model.shape.layers, model.context_window) == ("gemma3", 1, 2048)


@pytest.mark.parametrize(
    ("changes", "kv_heads", "head_size"),
    [
        ({"num_key_value_heads": None}, 8, 8),
        ({"head_dim": 128}, 4, 128),
        ({"num_key_value_heads": None, "multi_query": True}, 1, 8),
        ({"num_attention_heads": True, "num_key_value_heads": "4", "hidden_size": -3}, 0, 0),
    ],
)
def test_shapes_of_other_families(tmp_path: Path, changes: dict[str, object], kv_heads: int, head_size: int) -> None:
    shape = read_model(make_dense(tmp_path / "m", **changes)).shape
    assert (shape.kv_heads, shape.head_size) == (kv_heads, head_size)


@pytest.mark.parametrize("place", ["list in tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_places_of_a_chat_template(tmp_path: Path, place: str) -> None:
    folder = make_gptq(tmp_path / "m")
    listed = [{"name": "default", "template": "x"}] if place.startswith("list") else None
    write_json(folder / "tokenizer_config.json", {"chat_template": listed})
    if listed is None:
        (folder / place).write_text("{}")
    assert read_model(folder).has_chat_template


def test_a_config_written_by_python_may_hold_infinity(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}')
    assert read_model(folder).loadable
