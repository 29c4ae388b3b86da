"""GGUF headers are read as the format's own library writes them, in both byte orders."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from quantchat.catalog.gguf import FILE_TYPES, TYPES, read_gguf
from quantchat.catalog.gguf_model import gguf_sets
from quantchat.catalog.problems import Defect
from quantchat.catalog.reader import read_model
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan

ROWS, COLUMNS = 64, 256


def test_the_types_are_those_of_the_library() -> None:
    known = {code: (block.name, block.weights, block.size) for code, block in TYPES.items()}
    assert known == {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}


def test_the_recipes_are_those_of_the_library() -> None:
    recipes = [kind for kind in gguf.LlamaFileType if kind.name != "GUESSED"]
    assert {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in recipes} == FILE_TYPES


def write(path: Path, order: gguf.GGUFEndian) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    writer.add_name("A Model")
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_embedding_length(COLUMNS)
    writer.add_head_count(8)
    writer.add_head_count_kv([2, 4])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_token_list([f"token {number}" for number in range(500)])
    writer.add_token_scores([0.5] * 700)
    writer.add_chat_template("{{ messages }}")
    blocks = np.zeros((ROWS, COLUMNS // 32 * 18), dtype=np.uint8)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("output_norm.weight", np.zeros(COLUMNS, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("order", gguf.GGUFEndian)
def test_a_file_of_the_library(tmp_path: Path, order: gguf.GGUFEndian) -> None:
    model = read_model(write(tmp_path / "a-model.Q4_0.gguf", order))
    assert (model.name, model.model_type, model.quant.label()) == ("a-model.Q4_0", "llama", "GGUF Q4_0")
    assert (model.shape.layers, model.shape.attention_heads, model.shape.kv_heads) == (2, 8, 4)
    assert (model.shape.hidden_size, model.shape.vocabulary, model.context_window) == (COLUMNS, 500, 4096)
    assert model.parameters == ROWS * COLUMNS + COLUMNS
    assert model.weight_bytes == ROWS * COLUMNS // 32 * 18 + COLUMNS * 4
    assert model.has_chat_template
    assert model.tied
    assert model.problems == ()
    assert model.verdict.state == "runs"
    assert "transformers" in model.verdict.reason


def test_a_header_cut_anywhere_is_cut_off(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf", gguf.GGUFEndian.LITTLE).read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(Defect) as caught:
            read_gguf(tmp_path / "cut.gguf")
        assert caught.value.problem.code in ("weights-truncated", "gguf-damaged")


def test_an_old_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(struct.pack("<4sIII", b"GGUF", 1, 0, 0))
    (fault,) = read_model(tmp_path / "m.gguf").problems
    assert fault.cause == "m.gguf is not a sound GGUF file: version 1 is not known."


def test_a_split_model_is_one_model() -> None:
    parts = [f"big-Q4_K_M-{number:05d}-of-00003.gguf" for number in (3, 1, 2)]
    names = [*parts, "other.gguf", "half-00002-of-00002.gguf", "config.json", "mmproj-f16.gguf"]
    first = ["big-Q4_K_M-00001-of-00003.gguf", "half-00002-of-00002.gguf", "mmproj-f16.gguf", "other.gguf"]
    assert gguf_sets(names) == first


@pytest.mark.parametrize("name", [b"caf\xe9.gguf", b"caf\xe9/a.gguf"])
def test_a_path_that_is_not_utf8_is_told_before_a_load(tmp_path: Path, name: bytes) -> None:
    """It counted as loadable, and llama.cpp found no such file; a scan told of an error of Python."""
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    write(path, gguf.GGUFEndian.LITTLE)
    for model in (read_model(path), *scan([Root(tmp_path, "here")]).models):
        assert [(problem.code, problem.severity) for problem in model.problems] == [("path-not-utf8", "error")]
        assert model.path == str(tmp_path / name.decode(errors="backslashreplace"))
