"""Sources that are no ordinary folder: a GGUF file, and a LoRA adapter with its base."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import quantizing
from engine.quantizing import StopAfter, command, of_kind, run, shares
from engine.tiny import HIDDEN
from quantchat.engine.protocol import JobProgress
from quantchat.errors import Cancelled, JobError
from quantchat.quantize import dequantize, lora
from quantchat.quantize.watch import Watch
from unit_demo import files_below

# torch, transformers, peft and gptqmodel warn about themselves and each other at import and at load.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::Warning")]

RANK, ALPHA = 4, 12
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizing.write_calibration(tmp_path_factory.mktemp("calibration"))


def ignored() -> Watch:
    return Watch(lambda _: None, quantizing.never)


def tensors_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


# GGUF


@pytest.fixture(scope="session")
def gguf_file(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as llama.cpp would write it, in float32."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(models / "dense", path)
    return path


def write_gguf(folder: Path, path: Path) -> None:
    import gguf

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, vocabulary)
    for name, tensor in tensors_of(folder).items():
        values = tensor.float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            values = interleaved(values, heads)
        writer.add_tensor(gguf_name(name), values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: Any, vocabulary: dict[str, Any]) -> None:
    added = {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    tokens = sorted((vocabulary["model"]["vocab"] | added).items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([name for name, _ in tokens])
    writer.add_token_types([3 if name in added else 1 for name, _ in tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["model"]["merges"]])
    writer.add_bos_token_id(added["<s>"])
    writer.add_eos_token_id(added["</s>"])
    writer.add_chat_template("{% for message in messages %}<|user|>{{ message['content'] }}</s>{% endfor %}")


def interleaved(values: Any, heads: int) -> Any:
    """Order the rows of a query or key matrix as llama.cpp does for its rotary embedding."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns).contiguous()


def gguf_name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in whole:
        return f"{whole[name]}.weight"
    _, _, layer, rest = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def test_an_unpacked_gguf_file_holds_the_weights_that_were_put_in(
    gguf_file: Path, models: Path, tmp_path: Path
) -> None:
    dequantize.convert(gguf_file, tmp_path, ignored())
    before, after = tensors_of(models / "dense"), tensors_of(tmp_path)
    assert set(after) >= set(before) - {"lm_head.weight"}
    assert all((after[name].float() == before[name].float()).all() for name in set(before) & set(after))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_gguf_file_is_quantized_in_one_go(gguf_file: Path, calibration: Path, tmp_path: Path, method: str) -> None:
    events = run(command(gguf_file, tmp_path / "out", calibration, method=method))
    stages = [event.stage for event in of_kind(JobProgress, events)]
    assert stages.index(dequantize.UNPACKING) < stages.index("quantizing layers")
    told = shares(events)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(files_below(tmp_path / "out"))
    assert not [name for name in files_below(tmp_path) if name.startswith((".", "out/."))]


@pytest.mark.parametrize("moment", [2, 8, 20, 30])
def test_a_stop_while_a_source_is_prepared_leaves_nothing(
    gguf_file: Path, adapter: Path, calibration: Path, tmp_path: Path, moment: int
) -> None:
    asked = StopAfter(moment)
    with pytest.raises(Cancelled):
        run(command(gguf_file, tmp_path / "out", calibration, adapter=str(adapter)), asked)
    assert files_below(tmp_path) == []


# Adapters


@pytest.fixture(scope="session")
def adapter(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model whose changes are large."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(models / "dense", dtype=torch.float32)
    wanted = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, wanted)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    model.save_pretrained(folder)
    return folder


def test_a_merged_adapter_adds_its_product_to_the_base(adapter: Path, models: Path, tmp_path: Path) -> None:
    merged = tensors_of(lora.merge(models / "dense", adapter, tmp_path / "merged", ignored()))
    base, changes = tensors_of(models / "dense"), tensors_of(adapter)
    for name, weight in merged.items():
        down = changes.get(f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight")
        expected = base[name].float()
        if down is not None:
            up = changes[f"base_model.model.{name.removesuffix('.weight')}.lora_B.weight"]
            expected = expected + ALPHA / RANK * up @ down
            assert (weight.float() != base[name].float()).any()
        # Two roundings to bf16: of the change and of the sum.
        assert ((weight.float() - expected).abs() <= expected.abs() * 2**-7 + 1e-3).all()
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (models / "dense" / "tokenizer.json").read_bytes()


def test_an_adapter_is_merged_and_quantized_in_one_go(
    adapter: Path, models: Path, calibration: Path, tmp_path: Path
) -> None:
    events = run(command(models / "dense", tmp_path / "out", calibration, adapter=str(adapter), bits=8))
    stages = [event.stage for event in of_kind(JobProgress, events)]
    assert stages.index(lora.MERGING) < stages.index("quantizing layers")
    assert shares(events) == sorted(shares(events))
    assert not [name for name in files_below(tmp_path) if name.startswith((".", "out/."))]


def test_an_adapter_of_another_model_is_refused(adapter: Path, models: Path, calibration: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    config = LlamaConfig(
        vocab_size=384, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(other)
    with pytest.raises(JobError, match="cannot be merged into its base"):
        run(command(other, tmp_path / "out", calibration, adapter=str(adapter)))
    assert not (tmp_path / "out").exists()


def test_a_pickled_adapter_is_not_opened(adapter: Path, models: Path, calibration: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = tmp_path / "pickled"
    shutil.copytree(adapter, pickled)
    torch.save(load_file(adapter / lora.WEIGHTS), pickled / "adapter_model.bin")
    (pickled / lora.WEIGHTS).unlink()
    with pytest.raises(JobError, match=r"has no adapter_model\.safetensors"):
        run(command(models / "dense", tmp_path / "out", calibration, adapter=str(pickled)))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_adapter_is_refused(models: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no adapter_config\.json"):
        run(command(models / "dense", tmp_path / "out", calibration, adapter=str(models / "dense")))


def test_without_peft_the_command_that_installs_it_is_told(
    adapter: Path, models: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(JobError, match=r"pip install 'quantchat\[lora\]'"):
        run(command(models / "dense", tmp_path / "out", calibration, adapter=str(adapter)))


def test_the_tokenizer_of_an_adapter_wins(adapter: Path, models: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(adapter, tmp_path / "mine"))
    for path in (models / "dense").glob("token*"):
        shutil.copy(path, mine)
    (mine / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    lora.merge(models / "dense", mine, tmp_path / "merged", ignored())
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
