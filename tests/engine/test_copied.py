"""What the info panel gives to copy, against the libraries themselves: rendered templates and scripts that load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gptqmodel import GPTQModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo_model import demo_model
from engine.templates import SPECIALS, TEMPLATES, make_tokenizer
from engine.test_unpacked import BLOCK, blocks_of, is_matrix, rewrite
from quantchat.catalog.reader import read_model
from quantchat.catalog.sample import SAMPLE
from quantchat.catalog.template import sample_of
from quantchat.domain.chat import ChatMessage
from quantchat.engine.prompt import render_text
from quantchat.services.snippets import transformers_snippet

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_sample_is_what_the_engine_would_render(template: str, tmp_path: Path) -> None:
    make_tokenizer("byte-level", template).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    sample = sample_of(tmp_path)
    assert sample is not None
    assert sample.text == render_text(tokenizer, [ChatMessage(role, content) for role, content in SAMPLE])
    special = {piece.text for piece in sample.pieces if piece.special}
    assert special
    assert special <= {*SPECIALS, "<s>", "</s>"}
    assert all(len(tokenizer.encode(text, add_special_tokens=False)) == 1 for text in special)
    plain = "".join(piece.text for piece in sample.pieces if not piece.special)
    assert not set(tokenizer.encode(plain, add_special_tokens=False)) & set(tokenizer.all_special_ids)


def in_fp8(dense: Path, folder: Path) -> Path:
    shutil.copytree(dense, folder)
    tensors = load_file(dense / "model.safetensors")
    for name in [name for name in tensors if is_matrix(name)]:
        tensors[name], scales, _ = blocks_of(tensors[name])
        tensors[f"{name}_scale_inv"] = scales
    rewrite(folder, tensors, quantization_config={"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]})
    return folder


RUN = """
import contextlib, io, json, sys
for name in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(open(name).read(), {})
    print("RAN", json.dumps([name, said.getvalue()[-400:]]), file=sys.stderr)
"""


def test_the_scripts_for_transformers_load_and_answer(copy_of, models: Path, tmp_path: Path) -> None:
    old = copy_of("gptq")
    config = json.loads((old / "config.json").read_text())
    (old / "quantize_config.json").write_text(json.dumps(config.pop("quantization_config")))
    (old / "config.json").write_text(json.dumps(config))
    named = Path(shutil.copytree(models / "gptq", tmp_path / "named"))
    (named / "model.safetensors").rename(named / "gptq_model-4bit-32g.safetensors")
    folders = {"dense": models / "dense", "gptq": models / "gptq", "awq": models / "awq", "old": old, "named": named}
    folders["fp8"] = in_fp8(models / "dense", tmp_path / "fp8")
    demo = folders["demo"] = Path(shutil.copytree(demo_model(), tmp_path / "demo"))
    # Its own settings sample, and now and then what is drawn is not Paris.
    (demo / "generation_config.json").write_text("{}")
    scripts = []
    for name, folder in folders.items():
        snippet = transformers_snippet(read_model(folder), "cpu")
        assert not snippet.reason
        scripts.append(tmp_path / f"{name}.py")
        scripts[-1].write_text(snippet.text)
    assert "quantize_config.json" in (tmp_path / "old.py").read_text()
    assert "GPTQModel.load" in (tmp_path / "named.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, scripts)],
        cwd=tmp_path,
        env=os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    said = dict(json.loads(line[4:]) for line in done.stderr.splitlines() if line.startswith("RAN "))
    assert list(said) == [str(script) for script in scripts], done.stderr[-3000:]
    assert done.returncode == 0
    assert "Paris" in said[str(tmp_path / "demo.py")]


def test_weights_that_no_library_finds_by_their_name_are_named(copy_of) -> None:
    folder = copy_of("awq")
    (folder / "model.safetensors").rename(folder / "awq_model.safetensors")
    snippet = transformers_snippet(read_model(folder), "cpu")
    assert not snippet.text
    assert "rename it to model.safetensors" in snippet.reason
    with pytest.raises(FileNotFoundError, match="Could not find a model"):
        GPTQModel.load(str(folder), device="cpu")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
