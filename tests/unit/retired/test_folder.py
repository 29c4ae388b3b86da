"""Folders as transformers 4 and the retired libraries read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantchat.domain.models import ModelInfo, QuantSpec
from quantchat.engine.backends.retired.folder import (
    config_for_transformers_4,
    readable,
    tokenizer_for_transformers_4,
)

GPTQ = QuantSpec(method="gptq", bits=4, group_size=32, desc_act=True, sym=True)
AWQ = QuantSpec(method="awq", bits=4, group_size=64, checkpoint_format="gemm", raw={"zero_point": True})
NONE = QuantSpec(method="none")


def test_the_rotary_base_keeps_its_value() -> None:
    config = {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}, "x": 1}
    written = config_for_transformers_4(config, NONE)
    assert written == {"torch_dtype": "bfloat16", "rope_theta": 100000.0, "x": 1}


def test_a_scaled_rotary_embedding_keeps_its_scaling() -> None:
    rope = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    written = config_for_transformers_4({"rope_parameters": rope}, NONE)
    assert written["rope_theta"] == 5e5
    assert written["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}


def test_bases_by_kind_of_layer_have_their_old_names() -> None:
    kinds = {
        "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    }
    written = config_for_transformers_4({"text_config": {"rope_parameters": kinds}}, NONE)["text_config"]
    assert (written["rope_theta"], written["rope_local_base_freq"]) == (1e6, 1e4)
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_old_configs_stay_as_they_are() -> None:
    old = {"torch_dtype": "float16", "rope_theta": 1e4, "rope_scaling": None}
    assert config_for_transformers_4(old, NONE) == old


def test_awq_settings_are_those_that_autoawq_asks_for() -> None:
    written = config_for_transformers_4({"quantization_config": {"meta": {"uri": "x"}}}, AWQ)["quantization_config"]
    assert written["zero_point"] is True
    assert (written["bits"], written["group_size"], written["version"]) == (4, 64, "gemm")
    assert "meta" not in written


@pytest.mark.parametrize("name", ["TokenizersBackend", "TokenizersBackendFast"])
def test_a_tokenizer_without_a_class_of_its_own_is_the_fast_one(name: str) -> None:
    written = tokenizer_for_transformers_4({"tokenizer_class": name, "extra_special_tokens": ["<a>"]})
    assert written == {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<a>"]}


def test_other_tokenizers_and_tables_of_tokens_stay() -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "extra_special_tokens": {"image": "<image>"}}
    assert tokenizer_for_transformers_4(config) == config


def test_the_folder_is_linked_and_its_configs_are_written_anew(tmp_path: Path) -> None:
    folder, target = tmp_path / "model", tmp_path / "readable"
    folder.mkdir()
    target.mkdir()
    (folder / "gptq_model-4bit-32g.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text('{"rope_parameters": {"rope_theta": 7.0}}')
    (folder / "quantize_config.json").write_text('{"bits": 4, "meta": {}, "damp": "x"}')
    readable(ModelInfo(path=str(folder), name="m", quant=GPTQ), target)
    assert (target / "model.safetensors").resolve() == folder / "gptq_model-4bit-32g.safetensors"
    assert json.loads((target / "config.json").read_text())["rope_theta"] == 7.0
    settings = {"bits": 4, "group_size": 32, "desc_act": True, "sym": True}
    assert json.loads((target / "quantize_config.json").read_text()) == settings
    assert (folder / "config.json").read_text() == '{"rope_parameters": {"rope_theta": 7.0}}'
    assert sorted(file.name for file in folder.iterdir())[0] == "config.json"


def test_shards_keep_their_names(tmp_path: Path) -> None:
    folder, target = tmp_path / "model", tmp_path / "readable"
    folder.mkdir()
    target.mkdir()
    (folder / "config.json").write_text("{}")
    for name in ("a.safetensors", "b.safetensors", "model.safetensors.index.json"):
        (folder / name).write_text("{}")
    readable(ModelInfo(path=str(folder), name="m"), target)
    assert {"a.safetensors", "b.safetensors", "model.safetensors.index.json"} <= {f.name for f in target.iterdir()}
