"""Lines to copy: the right class, dtype, device and options for each model, and nothing that a name could inject."""

from __future__ import annotations

import ast
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest

from quantchat.catalog.reader import read_model
from quantchat.domain.models import ModelInfo, Problem, QuantSpec, Verdict
from quantchat.services.snippets import Device, shell_quoted, snippets, transformers_snippet, vllm_snippet
from unit.catalog.model_folders import AUTOAWQ_CONFIG, make_dense, make_gptq, write_json

GPTQ = QuantSpec(
    method="gptq", bits=4, group_size=128, desc_act=False, sym=True, checkpoint_format="gptq", source="config.json"
)
AWQ = QuantSpec(method="awq", bits=4, group_size=128, checkpoint_format="gemm", source="config.json")
MODEL = ModelInfo(
    path="/models/a b",
    name="a",
    architecture="LlamaForCausalLM",
    quant=GPTQ,
    context_window=4096,
    has_chat_template=True,
)


def of(**changes: object) -> ModelInfo:
    return msgspec.structs.replace(MODEL, **changes)


def quant(spec: QuantSpec = GPTQ, **changes: object) -> ModelInfo:
    return of(quant=msgspec.structs.replace(spec, **changes))


def calls(text: str) -> dict[str, dict[str, object]]:
    """The calls of a script by the name of the function, with their named arguments where those are literals."""
    found: dict[str, dict[str, object]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            found[ast.unparse(node.func)] = {word.arg or "": ast.unparse(word.value) for word in node.keywords}
    return found


# transformers


@pytest.mark.parametrize(
    ("model", "device", "dtype", "where"),
    [
        (MODEL, "cuda", "torch.float16", "{'': 'cuda:0'}"),
        (MODEL, "cpu", "torch.bfloat16", "{'': 'cpu'}"),
        (of(quant=QuantSpec(method="none")), "cuda", "'auto'", "{'': 'cuda:0'}"),
        (of(quant=QuantSpec(method="none")), "cpu", "torch.bfloat16", "{'': 'cpu'}"),
    ],
)
def test_dtype_and_device_are_named(tmp_path: Path, model: ModelInfo, device: Device, dtype: str, where: str) -> None:
    folder = make_gptq(tmp_path / "model")
    text = transformers_snippet(msgspec.structs.replace(model, path=str(folder)), device).text
    options = calls(text)["AutoModelForCausalLM.from_pretrained"]
    assert options["dtype"] == dtype
    assert options["device_map"] == where
    assert ("import torch" in text) == dtype.startswith("torch.")
    assert "trust_remote_code" not in text


def test_packages_are_named_that_the_format_needs(tmp_path: Path) -> None:
    folder = str(make_gptq(tmp_path / "model"))
    assert "gptqmodel optimum" in transformers_snippet(of(path=folder), "cpu").text
    assert "gptqmodel" not in transformers_snippet(of(path=folder, quant=QuantSpec(method="none")), "cpu").text
    verdict = Verdict(state="with", reason="It needs x.", install="pip install 'compressed-tensors>=0.15.0'")
    needy = of(quant=QuantSpec(method="compressed-tensors"), verdict=verdict)
    assert transformers_snippet(needy, "cpu").text.splitlines()[0].endswith("'compressed-tensors>=0.15.0'")


def test_eight_bits_on_the_cpu_name_the_fast_backend(tmp_path: Path) -> None:
    folder = str(make_gptq(tmp_path / "model"))
    eight = msgspec.structs.replace(quant(bits=8), path=folder)
    assert calls(transformers_snippet(eight, "cpu").text)["GPTQConfig"]["backend"] == "'gptq_torch_int8'"
    assert "GPTQConfig" not in transformers_snippet(eight, "cuda").text


def test_a_config_of_its_own_is_handed_to_transformers(tmp_path: Path) -> None:
    folder = make_dense(tmp_path / "model")
    left_out = {"modules_to_not_convert": ["gate", "lm_head"], "odd": float("inf")}
    write_json(folder / "quant_config.json", AUTOAWQ_CONFIG | left_out)
    model = msgspec.structs.replace(read_model(folder), problems=())
    tree = ast.parse(transformers_snippet(model, "cpu").text)
    given = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "quantization_config" in ast.unparse(node.targets[0])
    )
    config = ast.literal_eval(given.value)
    assert (config["quant_method"], config["bits"], config["group_size"], config["version"]) == ("awq", 4, 128, "gemm")
    assert config["modules_to_not_convert"] == ["gate", "lm_head"]


@pytest.mark.parametrize(("device", "unpacked"), [("cpu", True), ("cuda", False)])
def test_what_has_kernels_for_gpus_only_is_unpacked_elsewhere(device: Device, unpacked: bool) -> None:
    text = transformers_snippet(of(quant=QuantSpec(method="fp8", source="config.json")), device).text
    ast.parse(text)
    assert ("'dequantize': True" in text) == unpacked
    silent = transformers_snippet(of(quant=QuantSpec(method="fp8", source="tensors")), device).text
    assert "config.quantization_config = {'quant_method': 'fp8'" in silent


def test_weights_by_names_of_their_own(tmp_path: Path) -> None:
    model = read_model(make_dense(tmp_path / "model"))
    weights = tmp_path / "model" / "model.safetensors"
    weights.rename(weights.with_name("weights.safetensors"))
    assert "rename it to model.safetensors" in transformers_snippet(model, "cpu").reason
    assert vllm_snippet(model).text


@pytest.mark.parametrize("changes", [{"lm_head": True}, {"dynamic": True}])
def test_what_transformers_loads_wrongly_goes_through_gptqmodel(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = str(make_gptq(tmp_path / "model"))
    text = transformers_snippet(msgspec.structs.replace(quant(**changes), path=folder), "cuda").text
    assert calls(text)["GPTQModel.load"] == {"device": "'cuda:0'", "dtype": "torch.float16"}
    assert "AutoModelForCausalLM" not in text


@pytest.mark.parametrize(
    ("changes", "loader"),
    [
        ({"kind": "vision", "architecture": "LlavaForConditionalGeneration"}, "AutoModelForImageTextToText"),
        ({"kind": "embedding", "architecture": "BertModel"}, "AutoModel"),
        ({"kind": "encoder", "architecture": "BertForMaskedLM"}, "AutoModelForMaskedLM"),
        (
            {"kind": "encoder", "architecture": "T5ForConditionalGeneration", "model_type": "t5"},
            "AutoModelForSeq2SeqLM",
        ),
        ({"kind": "encoder", "architecture": "XForSequenceClassification"}, "AutoModelForSequenceClassification"),
        ({"kind": "chat", "architecture": "Gemma3ForConditionalGeneration"}, "AutoModelForCausalLM"),
        ({"kind": "chat", "architecture": None}, "AutoModelForCausalLM"),
    ],
)
def test_the_right_class_is_named(changes: dict[str, object], loader: str) -> None:
    text = transformers_snippet(of(quant=QuantSpec(method="none"), **changes), "cuda").text
    assert f"{loader}.from_pretrained" in calls(text)
    assert ("generate" in text) == (loader == "AutoModelForCausalLM")


def test_a_model_without_a_template_is_asked_without_one(tmp_path: Path) -> None:
    folder = str(make_gptq(tmp_path / "model"))
    text = transformers_snippet(of(path=folder, has_chat_template=False), "cpu").text
    assert "apply_chat_template" not in text
    ast.parse(text)


def test_gguf_is_loaded_by_its_file() -> None:
    verdict = Verdict(state="with", reason="It needs a package.", install="pip install 'llama-cpp-python>=0.3.30'")
    gguf = of(path="/models/x/tiny.Q4_K_M.gguf", container="gguf", quant=QuantSpec(method="gguf"), verdict=verdict)
    options = calls(transformers_snippet(gguf, "cpu").text)["AutoModelForCausalLM.from_pretrained"]
    assert options["gguf_file"] == "'tiny.Q4_K_M.gguf'"
    text = transformers_snippet(gguf, "cpu").text
    assert "path = '/models/x'" in text
    assert "16 bits" in text
    assert "llama-cpp-python" not in text


def test_gguf_has_a_script_for_llama_cpp_before_the_others() -> None:
    gguf = of(path="/models/x/it's.gguf", container="gguf", quant=QuantSpec(method="gguf"), context_window=8192)
    titles = [snippet.title for snippet in snippets(gguf, device="cpu")]
    assert titles == ["llama.cpp", "transformers", "vLLM"]
    text = snippets(gguf, device="cuda", context=2048)[0].text
    assert calls(text)["Llama"] == {"n_ctx": "2048", "n_gpu_layers": "-1", "verbose": "False"}
    assert "GGML_CUDA=on" in text.splitlines()[0]


def test_broken_models_get_a_reason() -> None:
    missing = Problem(code="shards-missing", severity="error", cause="1 of 2 files missing.", remedy="Resume it.")
    for snippet in snippets(of(problems=(missing,)), device="cpu"):
        assert snippet.text == ""
        assert "Resume it." in snippet.reason
    foreign = of(problems=(Problem(code="format-cannot-run", severity="error", cause="x", remedy="y"),))
    assert vllm_snippet(foreign).text


# vLLM


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (MODEL, "--quantization gptq_marlin --max-model-len 4096"),
        (quant(bits=8, desc_act=True), "--quantization gptq_marlin --max-model-len 4096"),
        (of(quant=AWQ), "--quantization awq_marlin --max-model-len 4096"),
        (of(quant=QuantSpec(method="none")), "--max-model-len 4096"),
        (of(quant=QuantSpec(method="compressed-tensors")), "--max-model-len 4096"),
        (of(quant=QuantSpec(method="none"), context_window=None), ""),
        (of(quant=QuantSpec(method="none"), kind="embedding"), "--runner pooling"),
    ],
)
def test_the_command_of_vllm(model: ModelInfo, options: str) -> None:
    assert vllm_snippet(model).text == f"vllm serve '/models/a b' {options}".rstrip()


def test_the_context_that_fits_is_served() -> None:
    assert "--max-model-len 1000" in vllm_snippet(MODEL, 1000).text
    assert "--max-model-len 4096" in vllm_snippet(MODEL, 9000).text


@pytest.mark.parametrize(("method", "plugin"), [("bitsandbytes", "vllm-bnb-plugin"), ("gguf", "vllm-gguf-plugin")])
def test_plugins_of_vllm_are_named(method: str, plugin: str) -> None:
    container = "gguf" if method == "gguf" else "safetensors"
    text = vllm_snippet(of(quant=QuantSpec(method=method), container=container)).text
    assert text.splitlines()[0] == f"# pip install {plugin}"
    assert ("# BASE_MODEL" in text) == ("--tokenizer BASE_MODEL" in text) == (method == "gguf")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (quant(bits=3), "3 bits"),
        (quant(sym=False), "asymmetric"),
        (quant(group_size=16), "groups of 16"),
        (quant(checkpoint_format="marlin"), "repacks"),
        (quant(AWQ, checkpoint_format="gemv"), "gemv"),
        (quant(AWQ, bits=8), "8"),
        (of(quant=QuantSpec(method="exl2", bits=4)), "no kernels for EXL2 4b"),
        (of(quant=QuantSpec(method="hqq")), "no kernels for HQQ"),
        (of(kind="adapter"), "adapter"),
        (of(container="mlx", quant=QuantSpec(method="mlx")), "mlx"),
    ],
)
def test_why_vllm_would_not_take_it(model: ModelInfo, reason: str) -> None:
    snippet = vllm_snippet(model)
    assert snippet.text == ""
    assert reason in snippet.reason
    assert len(snippet.reason.splitlines()) == 1


# Names


EVIL = ["a'; rm -rf ~; '", 'a"; import os #', "a\nb", "a\x1b[31mb", "a\\", "$(id)", "a\u202eb", "-rf", "日本"]


@pytest.mark.parametrize("name", EVIL)
def test_no_name_can_leave_its_quotes(name: str) -> None:
    path = f"/models/{name}"
    gguf = of(path=f"{path}.gguf", container="gguf", quant=QuantSpec(method="none"), remote_code=True, files=(name,))
    text = transformers_snippet(gguf, "cpu").text
    named = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert f"{name}.gguf" in named
    assert all(letter.isprintable() for line in text.splitlines() for letter in line)
    command = vllm_snippet(of(path=path, remote_code=True, files=(name,))).text.splitlines()[-1]
    assert command.isprintable()
    said = subprocess.run(["bash", "-c", f"vllm() {{ printf '%s\\0' \"$@\"; }}; {command}"], capture_output=True)
    assert said.stdout.decode().split("\0")[:2] == ["serve", path]


def test_ordinary_paths_are_quoted_as_usual() -> None:
    assert shell_quoted("/a/b-c.d") == "/a/b-c.d"
    assert shlex.split(shell_quoted("it's")) == ["it's"]
