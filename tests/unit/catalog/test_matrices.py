"""Which matrices of a model a quantizer would pack, told by headers alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from quantchat.catalog.matrices import matrices
from quantchat.catalog.quantizers import gguf_types, plain_type, quantizable_types
from quantchat.catalog.reader import read_model
from unit.catalog.corpus import build
from unit.catalog.model_folders import EMBEDDING, LLAMA, make_model


def sides(folder: Path, *, lm_head: bool = False) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for matrix in matrices(read_model(folder), lm_head=lm_head):
        found[matrix.sides] += matrix.count
    return found


def test_seven_matrices_in_each_layer_of_a_llama(tmp_path: Path) -> None:
    folder = build("dense-llama3.1-8b-sharded", tmp_path)
    assert sides(folder) == {
        (4096, 4096): 2 * 32,
        (4096, 1024): 2 * 32,
        (4096, 14336): 2 * 32,
        (14336, 4096): 32,
    }
    assert sides(folder, lm_head=True)[4096, 128256] == 1


def test_a_gguf_file_has_the_matrices_of_its_folder(tmp_path: Path) -> None:
    found = sides(build("gguf-llama3.1-q4-k-m", tmp_path))
    assert found == sides(build("dense-llama3.1-8b-sharded", tmp_path))


def test_an_image_tower_is_not_quantized(tmp_path: Path) -> None:
    model = read_model(build("dense-gemma3-4b-sees-and-chats", tmp_path))
    found = matrices(model)
    assert found
    assert not any("vision" in matrix.name for matrix in found)


def test_stacked_experts_count_each_and_who_chooses_them_stays(tmp_path: Path) -> None:
    tensors = {
        "model.layers.0.mlp.experts.down_proj": ("BF16", (32, 64, 128)),
        "model.layers.0.mlp.gate.weight": ("BF16", (32, 64)),
    }
    folder = make_model(tmp_path / "moe", tensors=EMBEDDING | tensors, files={"config.json": LLAMA})
    (found,) = matrices(read_model(folder))
    assert (found.sides, found.count) == ((128, 64), 32)


def test_damaged_files_tell_of_no_matrices(tmp_path: Path) -> None:
    assert sides(build("triage-cut-off", tmp_path)) == {}
    assert sides(build("gguf-cut-off", tmp_path)) == {}


def test_the_installed_libraries_tell_what_they_take() -> None:
    assert {"llama", "qwen2", "mistral", "qwen3_5"} <= quantizable_types()
    assert {"llama", "qwen2", "gemma3"} <= gguf_types()
    assert plain_type("qwen2_moe") == plain_type("qwen2moe") in gguf_types()
