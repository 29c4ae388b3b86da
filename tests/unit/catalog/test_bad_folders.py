"""Folders that cannot be loaded say why and what to do, and never raise."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantchat.catalog.problems import clean
from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo
from unit.catalog.model_folders import (
    EMBEDDING,
    make_dense,
    make_gptq,
    make_sharded,
    write_json,
    write_raw_safetensors,
    write_safetensors,
    write_tokenizer,
)

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 134\n"
SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def the_error(model: ModelInfo) -> str:
    (problem,) = model.errors
    assert problem.remedy
    assert "\n" not in problem.cause + problem.remedy
    return f"{problem.code}: {problem.cause}"


def config_text(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(text)


def config_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_bytes(data)


def replaced(name: str, text: str = "") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def removed(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, size)


def becomes_folder(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replace


def becomes_pipe(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replace


def becomes_loop(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(name)

    return replace


def two_files(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    write_safetensors(folder / "b.safetensors", EMBEDDING)


BAD_CONFIGS = {
    "cut in half": (config_text('{"model_type": "lla'), "not-json: config.json is not valid JSON: "),
    "empty": (config_text(""), "not-json"),
    "binary": (config_bytes(b"\x80\x81\xff"), "not-json"),
    "too deep": (config_text("[" * 100_000), "not-json"),
    "endless number": (config_text('{"a": ' + "9" * 10_000 + "}"), "not-json"),
    "a list": (config_text("[1]"), "not-an-object: config.json holds no JSON object."),
    "a folder": (becomes_folder("config.json"), "file-unreadable"),
    "a pipe": (becomes_pipe("config.json"), "file-unreadable: config.json cannot be read: it is not a regular file."),
    "a link to itself": (becomes_loop("config.json"), "link-loop: config.json is a link that leads back to itself."),
    "an LFS pointer": (config_text(LFS), "lfs-pointer: config.json is a Git LFS pointer, not the file itself."),
    "absent": (removed("config.json"), "config-missing"),
    "without a type": (config_text('{"architectures": "Llama", "hidden_size": []}'), "model-type-missing"),
    "of a number type": (config_text('{"model_type": 3}'), "model-type-missing"),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_bad_configs(tmp_path: Path, kind: str) -> None:
    spoil, expected = BAD_CONFIGS[kind]
    folder = make_dense(tmp_path / "m")
    spoil(folder)
    assert the_error(read_model(folder)).startswith(expected)


BAD_WEIGHTS = {
    "none": (removed("model.safetensors"), "weights-missing: The folder holds no weights."),
    "an LFS pointer": (replaced("model.safetensors", LFS), "lfs-pointer: model.safetensors is a Git LFS pointer"),
    "empty": (cut("model.safetensors", 0), "weights-truncated: model.safetensors is cut off: at least 8 bytes exp"),
    "cut in the length": (cut("model.safetensors", 5), "weights-truncated"),
    "cut in the header": (cut("model.safetensors", 60), "weights-truncated"),
    "a text": (
        replaced("model.safetensors", "<html>Not found, sorry</html>"),
        "weights-damaged: model.safetensors is not a sound safetensors file: it is a text, such as a web page.",
    ),
    "a folder": (becomes_folder("model.safetensors"), "shards-missing"),
    "a pipe": (becomes_pipe("model.safetensors"), "shards-missing"),
    "a link to itself": (becomes_loop("model.safetensors"), "link-loop: model.safetensors is a link that leads back"),
    "pickles": (renamed("model.safetensors", "pytorch_model.bin"), "pickle-only: The weights are pickles (pytorch_mo"),
    "old pickles": (renamed("model.safetensors", "gptq_model-4bit.pt"), "pickle-only"),
    "a GGUF file": (renamed("model.safetensors", "model.Q4_K_M.gguf"), "gguf-only"),
    "only what training left": (renamed("model.safetensors", "training_args.bin"), "weights-missing"),
    "two without an index": (
        two_files,
        "weights-ambiguous: Several weight files and no index: a.safetensors, b.safetensors.",
    ),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_bad_weights(tmp_path: Path, kind: str) -> None:
    spoil, expected = BAD_WEIGHTS[kind]
    folder = make_dense(tmp_path / "m")
    spoil(folder)
    model = read_model(folder)
    assert the_error(model).startswith(expected)
    assert model.parameters is None


def test_a_truncated_file_names_both_sizes(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "m")
    whole = (folder / "model.safetensors").stat().st_size
    os.truncate(folder / "model.safetensors", whole - 1000)
    expected = f"weights-truncated: model.safetensors is cut off: {whole} bytes expected, {whole - 1000} found."
    assert the_error(read_model(folder)) == expected


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 6]}},
        {"a": {"dtype": "F16", "shape": [4], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F16", "shape": [4], "data_offsets": [-8, 0]}},
        {"a": {"dtype": "F16", "shape": [4]}},
        {"a": {"dtype": "F16", "shape": [2**70], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F16", "shape": "4", "data_offsets": [0, 8]}},
        {"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}},
        {f"a{i}": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]} for i in range(2)},
        {"a": [1]},
        [],
    ],
)
def test_headers_that_contradict_themselves(tmp_path: Path, header: object) -> None:
    folder = make_dense(tmp_path / "m")
    write_raw_safetensors(folder / "model.safetensors", header, bytes(8))
    assert the_error(read_model(folder)).startswith("weights-damaged: model.safetensors is not a sound")


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "its header claims 1152921504606846976 bytes" in the_error(read_model(folder))


def placed(weight_map: object) -> Callable[[Path], object]:
    return lambda folder: write_json(folder / INDEX, {"weight_map": weight_map})


BAD_SHARDS = {
    "a shard is absent": (removed(SHARD), f"shards-missing: 1 of 2 weight files missing: {SHARD}."),
    "the index is absent": (removed(INDEX), f"index-missing: The weights are sharded, but {INDEX} is missing."),
    "index and shard are absent": (removed(INDEX, SHARD), f"shards-missing: 1 of 2 weight files missing: {SHARD}."),
    "the index is cut": (replaced(INDEX, '{"weight_map": {'), f"not-json: {INDEX} is not valid JSON"),
    "the index is empty": (replaced(INDEX, "{}"), f"index-invalid: {INDEX} is damaged: it has no weight_map."),
    "the index climbs out": (placed({"a": "../../etc/x.safetensors"}), "index-invalid"),
    "the index names numbers": (placed({"a": 3}), "index-invalid"),
    "the index promises more": (
        placed({"a": "model-00001-of-00002.safetensors", "model.embed_tokens.weight": SHARD}),
        "tensors-missing: Tensors of the index are in no file: 1, such as a.",
    ),
    "a shard is cut": (cut(SHARD, 300), f"weights-truncated: {SHARD} is cut off: "),
}


@pytest.mark.parametrize("kind", BAD_SHARDS)
def test_bad_shards(tmp_path: Path, kind: str) -> None:
    spoil, expected = BAD_SHARDS[kind]
    folder = make_sharded(tmp_path / "m")
    spoil(folder)
    assert the_error(read_model(folder)).startswith(expected)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bits": "4"}, "bits is '4'"),
        ({"bits": None}, "bits is missing"),
        ({"bits": True}, "bits is True"),
        ({"bits": 64}, "bits is 64"),
        ({"group_size": 0}, "group_size is 0"),
        ({"group_size": 128.0}, "group_size is 128.0"),
        ({"desc_act": "false"}, "desc_act is 'false'"),
        ({"checkpoint_format": 2}, "checkpoint_format is 2"),
        ({"meta": "\ud800"}, "it holds text or numbers that no program can pass on"),
        ({"meta": 2**70}, "it holds text or numbers that no program can pass on"),
    ],
)
def test_quantization_settings_that_make_no_sense(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    error = the_error(read_model(make_gptq(tmp_path / "m", **changes)))
    assert error == f"quantization-invalid: config.json has a quantization setting that makes no sense: {why}."


def test_a_missing_tokenizer_is_an_error_and_a_missing_template_a_warning(tmp_path: Path) -> None:
    folder = make_gptq(tmp_path / "m")
    write_tokenizer(folder, template=None)
    assert [(p.code, p.severity) for p in read_model(folder).problems] == [("chat-template-missing", "warning")]
    (folder / "tokenizer.json").unlink()
    assert the_error(read_model(folder)).startswith("tokenizer-missing")
    (folder / "tokenizer.json").write_text(LFS)
    assert the_error(read_model(folder)).startswith("lfs-pointer: tokenizer.json")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_a_warning(tmp_path: Path, file: str) -> None:
    folder = make_dense(tmp_path / "m")
    content = json.loads((folder / file).read_text()) | {"auto_map": {"AutoModel": "modeling_x.X"}}
    write_json(folder / file, content)
    model = read_model(folder)
    assert model.remote_code
    assert model.loadable
    assert [problem.code for problem in model.problems] == ["remote-code"]


def test_an_adapter_is_named_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "meta-llama/Llama-3.1-8B\u202e"})
    write_safetensors(folder / "adapter_model.safetensors", {"lora_A.weight": ("F32", (8, 4))})
    assert the_error(read_model(folder)) == (
        "adapter: This is an adapter for meta-llama/Llama-3.1-8B, not a whole model."
    )
    write_json(folder / "adapter_config.json", {})
    assert "an adapter for a model it does not name" in the_error(read_model(folder))


@pytest.mark.parametrize(
    "config", [{"architectures": ["BertForMaskedLM"]}, {"architectures": ["T5Model"], "is_encoder_decoder": True}]
)
def test_models_for_other_tasks(tmp_path: Path, config: dict[str, object]) -> None:
    assert the_error(read_model(make_dense(tmp_path / "m", **config))).startswith("not-a-chat-model")


def test_settings_of_another_program_are_no_model(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"theme": "dark"})
    assert the_error(read_model(tmp_path)).startswith("not-a-model")


@pytest.mark.parametrize("path", ["absent", "file", "file/below", "loop"])
def test_paths_that_are_no_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert the_error(read_model(tmp_path / path)).startswith("folder-unreadable: The folder cannot be read: ")


def test_names_of_foreign_files_cannot_steer_the_terminal(tmp_path: Path) -> None:
    folder = make_dense(
        tmp_path / "evil\x1b[2J\u202egnp\n", architectures=["\x1b]0;pwned\x07Llama"], model_type="a\x9bb"
    )
    model = read_model(folder)
    assert model.name == "evil[2Jgnp"
    assert model.architecture == "]0;pwnedLlama"
    assert model.model_type == "ab"
    assert clean("a" * 500).endswith("…")


def test_a_path_that_is_not_utf8_is_an_error_that_can_be_shown(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / os.fsdecode(b"caf\xe9"))
    model = read_model(folder)
    assert the_error(model).startswith("path-not-utf8")
    assert json.loads(json.dumps(model.path).encode()) == str(tmp_path / "caf\\xe9")


AS_NOBODY = """
import os, sys
from pathlib import Path
from quantchat.catalog.reader import read_model
from quantchat.catalog.roots import Root
from quantchat.catalog.scan import scan
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
found = scan([Root(Path(sys.argv[1]), "test"), Root(Path(sys.argv[1]) / "closed" / "below", "test")])
for model in [*found.models, read_model(Path(sys.argv[1]) / "closed")]:
    print(model.name, [problem.cause for problem in model.problems])
for report in found.problems:
    print(report.code, report.detail)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_permissions_hide(public: Path) -> None:
    """Root may read everything, so the reader runs as a user who may not."""
    make_dense(public / "config").joinpath("config.json").chmod(0)
    make_dense(public / "weights").joinpath("model.safetensors").chmod(0)
    make_dense(public / "closed").chmod(0)
    (public / "listed").mkdir()
    make_dense(public / "listed" / "m")
    (public / "listed").chmod(0o744)
    command = [sys.executable, "-c", AS_NOBODY, str(public)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "config ['config.json cannot be read: permission denied.']",
        "weights ['model.safetensors cannot be read: permission denied.']",
        "closed ['The folder cannot be read: permission denied.']",
        f"folder-unreadable {public}/closed: permission denied.",
        f"folder-unreadable {public}/listed/m: permission denied.",
    ]
