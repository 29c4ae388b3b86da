"""Formats without a kernel of their own are unpacked to the weights that were packed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import tiny
from quantchat.catalog.reader import read_model
from quantchat.domain.models import QuantSpec
from quantchat.engine import loader, quiet
from quantchat.engine import protocol as p
from quantchat.engine.packing import quantization_config
from quantchat.errors import LoadError

pytestmark = pytest.mark.engine
BLOCK = 64
FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
FP4_BLOCK = 32


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    quiet.set_environment()
    quiet.silence()


def load(path: Path):
    model = read_model(path)
    assert model.loadable, model.problems
    return loader.load(p.Load(request="", model=model, device="cpu"), lambda _: None)


def logits(model):
    ids = torch.arange(5, 40).reshape(1, -1)
    with torch.no_grad():
        return model(input_ids=ids).logits[0].float()


def same(left, right) -> bool:
    return bool(torch.cosine_similarity(left, right).min() > 0.999)


def rewrite(folder: Path, tensors, **config) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


def blocks_of(weight, block: int = BLOCK):
    """Quantize a matrix to FP8 with a scale for each block; return both, and what they stand for."""
    rows, columns = weight.shape
    tiles = weight.float().reshape(rows // block, block, columns // block, block)
    scales = tiles.abs().amax(dim=(1, 3)) / 448
    packed = (tiles / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    stands_for = (packed.float() * scales[:, None, :, None]).reshape(rows, columns)
    return packed.reshape(rows, columns), scales, stands_for.to(torch.bfloat16)


def is_matrix(name: str) -> bool:
    return "_proj." in name


@pytest.fixture
def fp8(models, tmp_path):
    """A folder in FP8, and one with the weights that it stands for."""

    def make(scale_name: str = "weight_scale_inv", **config):
        packed_folder, plain_folder = tmp_path / "fp8", tmp_path / "plain"
        for folder in (packed_folder, plain_folder):
            shutil.copytree(models / "dense", folder)
        packed, plain = {}, {}
        for name, tensor in load_file(models / "dense" / "model.safetensors").items():
            packed[name] = plain[name] = tensor
            if is_matrix(name):
                packed[name], scales, plain[name] = blocks_of(tensor)
                packed[name.removesuffix("weight") + scale_name] = scales
        settings = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]} | config
        rewrite(packed_folder, packed, quantization_config=settings)
        rewrite(plain_folder, plain)
        return packed_folder, plain_folder

    return make


@pytest.mark.parametrize("method", ["fp8", "finegrained_fp8", "mxfp8"])
def test_fp8_weights_are_unpacked(fp8, method: str) -> None:
    packed, plain = fp8(quant_method=method)
    loaded = load(packed)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.report.kernel == "dense"
    assert same(logits(loaded.model), logits(load(plain).model))


def test_fp8_weights_that_no_config_names_are_unpacked(fp8) -> None:
    packed, plain = fp8()
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"]
    (packed / "config.json").write_text(json.dumps(config))
    assert read_model(packed).quant.method == "fp8"
    assert same(logits(load(packed).model), logits(load(plain).model))


def test_fp8_scales_by_a_name_that_is_not_read_are_refused(fp8) -> None:
    """Without them the engine would compute with weights that are too large by the scales."""
    packed, _ = fp8(scale_name="weight_scale")
    model = read_model(packed)
    (fault,) = model.errors
    assert fault.cause == "FP8 cannot run here: its scales are called weight_scale, which transformers does not read."
    with pytest.raises(LoadError) as caught:
        loader.load(p.Load(request="", model=model, device="cpu"), lambda _: None)
    assert caught.value.report.title == "The model has packed weights that the loader did not use"


def pack_fp4(shape):
    """Draw a random stack of matrices in MXFP4; return blocks, scales, and what they stand for."""
    experts, inputs, outputs = shape
    codes = torch.randint(0, 16, (experts, outputs, inputs // FP4_BLOCK, FP4_BLOCK))
    exponents = torch.randint(-5, -2, codes.shape[:3])
    blocks = (codes[..., 0::2] | (codes[..., 1::2] << 4)).to(torch.uint8)
    dense = (FP4[codes] * torch.exp2(exponents.float())[..., None]).reshape(experts, outputs, inputs)
    return blocks, (exponents + 127).to(torch.uint8), dense.transpose(1, 2).to(torch.bfloat16)


@pytest.fixture
def gpt_oss(tmp_path):
    """A folder in MXFP4, and one with the weights that it stands for."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(3)
    tokenizer = tiny.make_tokenizer()
    config = GptOssConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256,
        sliding_window=32, initializer_range=0.2, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "mxfp4")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    packed = dict(plain)
    for name in [name for name in plain if name.endswith(("gate_up_proj", "down_proj"))]:
        del packed[name]
        packed[f"{name}_blocks"], packed[f"{name}_scales"], plain[name] = pack_fp4(plain[name].shape)
    rewrite(tmp_path / "mxfp4", packed, quantization_config={"quant_method": "mxfp4"})
    rewrite(tmp_path / "plain", plain)
    return tmp_path / "mxfp4", tmp_path / "plain"


def test_mxfp4_experts_are_unpacked(gpt_oss) -> None:
    packed, plain = gpt_oss
    loaded = load(packed)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert same(logits(loaded.model), logits(load(plain).model))


def ternary(folder: Path, models: Path, linear: str):
    """Write a BitNet folder, and return the weights of its matrices as they are when unpacked."""
    from transformers.integrations.bitnet import pack_weights

    shutil.copytree(models / "dense", folder)
    tensors = load_file(models / "dense" / "model.safetensors")
    for name in [name for name in tensors if is_matrix(name)]:
        scale = 1 / tensors[name].float().abs().mean()
        tensors[name] = pack_weights((tensors[name].float() * scale).round().clamp(-1, 1))
        tensors[f"{name}_scale"] = (scale if linear == "bitlinear" else 1 / scale).reshape(1).to(torch.bfloat16)
    settings = {"quant_method": "bitnet", "linear_class": linear, "modules_to_not_convert": ["lm_head"]}
    rewrite(folder, tensors, quantization_config=settings)
    return folder


def test_bitnet_runs_packed_and_unpacked(models, tmp_path) -> None:
    found = {}
    for linear in ("bitlinear", "autobitlinear"):
        loaded = load(ternary(tmp_path / linear, models, linear))
        found[linear] = logits(loaded.model)
        model = read_model(tmp_path / linear)
        assert model.parameters == read_model(models / "dense").parameters
        predicted = model.weights.inputs.floats + model.weights.outputs.floats
        predicted += sum(run.count * (run.pieces.floats + run.pieces.other / 2) for run in model.weights.layers)
        assert predicted * 2 == pytest.approx(loaded.report.weight_bytes, rel=0.01)
    assert torch.cosine_similarity(found["bitlinear"], found["autobitlinear"]).min() > 0.98


@pytest.mark.parametrize("name", ["GPTQ", "gptqmodel"])
def test_a_method_by_another_name_is_not_quantized_anew(models, copy_of, name: str) -> None:
    renamed = copy_of("gptq")
    config = json.loads((renamed / "config.json").read_text())["quantization_config"]
    rewrite(renamed, load_file(renamed / "model.safetensors"), quantization_config=config | {"quant_method": name})
    assert (logits(load(renamed).model) == logits(load(models / "gptq").model)).all()


def told(spec: QuantSpec, stated=None, nested=None):
    text = SimpleNamespace(quantization_config=nested)
    return quantization_config(spec, SimpleNamespace(quantization_config=stated, get_text_config=lambda: text))


def test_transformers_is_told_what_it_does_not_find() -> None:
    packed = QuantSpec(method="gptq", raw={"quant_method": "gptq", "bits": 4})
    old = QuantSpec(method="compressed-tensors", raw={"quant_method": "compressed-tensors", "format": "pack-quantized"})
    assert told(QuantSpec(method="none")) == {}
    assert told(packed) == told(packed, {"quant_method": "marlin"}) == packed.raw
    assert told(packed, {"quant_method": "gptq", "bits": 3}) == {"quant_method": "gptq", "bits": 3}
    assert told(old) == old.raw | {"dequantize": True}
    assert told(QuantSpec(method="fp8"), nested={"quant_method": "fp8"}) == {"quant_method": "fp8", "dequantize": True}


def test_aqlm_leaves_out_modules() -> None:
    """With the weights' names, transformers would look for a packed output head, which no checkpoint has."""
    stated = {"quant_method": "aqlm", "linear_weights_not_to_quantize": ["model.norm.weight", "lm_head.weight"]}
    settings = told(QuantSpec(method="aqlm"), stated)
    assert settings["linear_weights_not_to_quantize"] == ["model.norm", "lm_head"]
