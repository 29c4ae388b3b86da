"""The command of a server for a model, its cards and what the user wants."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import msgspec
import pytest

from quantchat.domain.memory import GIB
from quantchat.domain.models import ModelInfo, Problem, QuantSpec
from quantchat.errors import ModelError, UsageError
from quantchat.services.serving.plan import ServePlan, Wish
from quantchat.services.serving.planning import plan_vllm
from quantchat.services.serving.small import WAITING, plan_transformers
from unit.catalog.model_folders import make_dense, make_gptq
from unit.serving.networks import AWQ, GPTQ, PLAIN, card, look, network

FIXED = ["serve", "/models/llama 8b", "--served-model-name", "org/llama-8b", "--host", "127.0.0.1", "--port", "8000"]
WISH = Wish(port=8000)


def plan(model: ModelInfo, wish: Wish = WISH, *cards: object) -> ServePlan:
    return plan_vllm(model, look(*cards), wish, "vllm")  # type: ignore[arg-type]


def value_of(found: ServePlan, option: str) -> str | None:
    words = list(found.arguments)
    return words[words.index(option) + 1] if option in words else None


# vLLM


def test_the_whole_command() -> None:
    found = plan(network(window=8192), WISH, card())
    assert list(found.arguments) == [
        *FIXED,
        *("--quantization", "gptq_marlin"),
        *("--max-model-len", "8192"),
        *("--dtype", "float16"),
        *("--gpu-memory-utilization", "0.9"),
    ]
    assert found.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert found.keyed
    assert found.notes == ()
    assert found.url == "http://127.0.0.1:8000/v1"
    assert (found.model, found.context) == ("org/llama-8b", 8192)


@pytest.mark.parametrize(
    ("quant", "capability", "kernel", "dtype"),
    [
        (GPTQ, (8, 6), "gptq_marlin", "float16"),
        (GPTQ, (7, 5), "gptq_marlin", "float16"),
        (GPTQ, (7, 0), "gptq", "float16"),
        (AWQ, (9, 0), "awq_marlin", "float16"),
        (AWQ, (7, 5), "awq", "float16"),
        (PLAIN, (8, 0), None, None),
        (PLAIN, (7, 5), None, "float16"),
        (QuantSpec(method="compressed-tensors"), (9, 0), None, None),
    ],
)
def test_kernel_and_dtype(quant: QuantSpec, capability: tuple[int, int], kernel: str | None, dtype: str | None) -> None:
    found = plan(network(quant=quant), WISH, card(capability=capability))
    assert (value_of(found, "--quantization"), value_of(found, "--dtype")) == (kernel, dtype)


def test_a_model_that_overflows_in_float16_keeps_its_dtype() -> None:
    assert value_of(plan(network(model_type="gemma3_text"), WISH, card()), "--dtype") is None
    told = msgspec.structs.replace(WISH, dtype="bfloat16")
    assert value_of(plan(network(), told, card()), "--dtype") == "bfloat16"


def test_the_weakest_card_says_what_is_possible() -> None:
    mixed = card(total=8, capability=(9, 0)), card(1, total=8, capability=(7, 0))
    assert value_of(plan(network(), WISH, *mixed), "--quantization") == "gptq"


def test_the_context_is_what_fits() -> None:
    found = plan(network(), WISH, card(total=12))
    tokens = int(value_of(found, "--max-model-len") or 0)
    assert 0 < tokens < 131072
    assert found.context == tokens
    assert any(f"{tokens:,} of the model's 131,072" in note for note in found.notes)
    told = plan(network(), msgspec.structs.replace(WISH, context=2000), card(total=12))
    assert value_of(told, "--max-model-len") == "2000"


def test_several_cards() -> None:
    found = plan(network(), WISH, *(card(index, total=8) for index in range(2)))
    assert value_of(found, "--tensor-parallel-size") == "2"
    assert value_of(found, "--pipeline-parallel-size") is None
    pipeline = plan(network(heads=9, kv_heads=3, hidden=4608), WISH, *(card(index, total=8) for index in range(2)))
    assert value_of(pipeline, "--tensor-parallel-size") is None
    assert value_of(pipeline, "--pipeline-parallel-size") == "2"
    assert any("9 attention heads" in note for note in pipeline.notes)


def test_the_sizes_that_the_user_wants() -> None:
    cards = [card(index) for index in range(4)]
    found = plan(network(), msgspec.structs.replace(WISH, tensor=2, pipeline=2), *cards)
    assert (value_of(found, "--tensor-parallel-size"), value_of(found, "--pipeline-parallel-size")) == ("2", "2")
    with pytest.raises(UsageError, match="32 attention heads cannot be divided by 3"):
        plan(network(), msgspec.structs.replace(WISH, tensor=3), *cards)
    with pytest.raises(UsageError, match="takes 8 GPUs"):
        plan(network(), msgspec.structs.replace(WISH, tensor=8), *cards)


def test_others_on_the_card_get_their_memory() -> None:
    found = plan(network(window=4096), WISH, card(free=12.5))
    assert value_of(found, "--gpu-memory-utilization") == "0.51"
    assert any("51%" in note for note in found.notes)
    told = plan(network(window=4096), msgspec.structs.replace(WISH, share=0.7), card(free=12.5))
    assert value_of(told, "--gpu-memory-utilization") == "0.7"


@pytest.mark.parametrize(("visible", "wanted"), [(None, "1"), ("2,0", "0"), ("GPU-2,GPU-0", "GPU-0")])
def test_the_emptiest_card_is_named_as_the_user_names_it(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, wanted: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [card(free=20), card(1, free=23), card(2, free=8)]
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = plan(network(window=4096), WISH, *cards)
    assert found.environment["CUDA_VISIBLE_DEVICES"] == wanted
    assert any("left free" in note for note in found.notes)


def test_the_cards_that_the_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [card(index, total=8) for index in range(3)]
    found = plan(network(), msgspec.structs.replace(WISH, devices=("cuda:0", "cuda:2")), *cards)
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert value_of(found, "--tensor-parallel-size") == "2"
    with pytest.raises(UsageError, match="There is no device cuda:7"):
        plan(network(), msgspec.structs.replace(WISH, devices=("cuda:7",)), *cards)
    with pytest.raises(UsageError, match="--backend transformers"):
        plan(network(), msgspec.structs.replace(WISH, devices=("cpu",)), *cards)


def test_several_machines() -> None:
    found = plan(network(), msgspec.structs.replace(WISH, nodes=2), *(card(index, total=8) for index in range(4)))
    assert (value_of(found, "--tensor-parallel-size"), value_of(found, "--pipeline-parallel-size")) == ("4", "2")
    assert value_of(found, "--distributed-executor-backend") == "ray"
    here = found.environment["VLLM_HOST_IP"]
    lines = [line for line in found.cluster if not line.startswith("#")]
    assert lines == [
        f"VLLM_HOST_IP={here} ray start --head --node-ip-address={here} --port=6379",
        f"VLLM_HOST_IP=ITS_ADDRESS ray start --address={here}:6379 --node-ip-address=ITS_ADDRESS",
    ]


def test_without_a_card_it_says_so() -> None:
    found = plan(network(window=4096))
    assert any("No NVIDIA GPU" in note for note in found.notes)
    assert found.environment == {}
    assert value_of(found, "--gpu-memory-utilization") is None


def test_a_model_without_a_template_gets_one() -> None:
    assert "<|im_start|>" in (value_of(plan(network(has_chat_template=False), WISH, card()), "--chat-template") or "")


def test_further_words_come_last() -> None:
    wish = msgspec.structs.replace(WISH, extra=("--max-num-seqs", "8"))
    assert plan(network(), wish, card()).arguments[-2:] == ("--max-num-seqs", "8")


def test_a_name_that_begins_with_a_dash_is_no_option() -> None:
    found = plan(network(name="-8b"), msgspec.structs.replace(WISH, dtype="-x"), card())
    assert "--served-model-name=-8b" in found.arguments
    assert "--dtype=-x" in found.arguments
    assert found.model == "-8b"
    gguf = network(container="gguf", quant=QuantSpec(method="gguf", bits=4), weights=GIB)
    assert "--tokenizer=-x" in plan(gguf, msgspec.structs.replace(WISH, tokenizer="-x"), card()).arguments


@pytest.mark.parametrize(
    ("extra", "remedy"),
    [
        (("--port", "9000"), "before the --"),
        (("--host=0.0.0.0",), "before the --"),
        (("--max-num-seqs", "8", "--served_model_name", "m"), "before the --"),
        (("--api-key", "secret"), "VLLM_API_KEY"),
    ],
)
def test_further_words_do_not_hide_the_server(extra: tuple[str, ...], remedy: str) -> None:
    """It was waited for without end at the port that it did not have."""
    with pytest.raises(UsageError) as refused:
        plan(network(), msgspec.structs.replace(WISH, extra=extra), card())
    assert remedy in refused.value.report.remedy
    assert "secret" not in refused.value.report.sentence()


def test_a_context_beyond_the_models_is_refused() -> None:
    """It was cut to the model's in the command alone: the screen took the server for a longer one."""
    with pytest.raises(UsageError, match="made for 8,192"):
        plan(network(window=8192), msgspec.structs.replace(WISH, context=8193), card())
    assert plan(network(window=8192), msgspec.structs.replace(WISH, context=8192), card()).context == 8192


def test_gguf_wants_a_plug_in_and_a_tokenizer() -> None:
    gguf = network(path="/models/x.gguf", container="gguf", quant=QuantSpec(method="gguf", bits=4), weights=GIB)
    found = plan(gguf, WISH, card())
    assert value_of(found, "--tokenizer") == "BASE_MODEL"
    assert any("vllm-gguf-plugin" in note for note in found.notes)
    assert (
        value_of(plan(gguf, msgspec.structs.replace(WISH, tokenizer="org/base"), card()), "--tokenizer") == "org/base"
    )


BROKEN = Problem(code="weights-missing", severity="error", cause="A shard is missing.", remedy="Download it again.")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (network(kind="embedding"), "no chat model"),
        (network(kind="adapter"), "no chat model"),
        (network(remote_code=True, files=("modeling.py",)), "modeling.py"),
        (network(problems=(BROKEN,)), "A shard is missing"),
        (network(quant=msgspec.structs.replace(GPTQ, bits=3)), "3 bits"),
        (network(quant=QuantSpec(method="exl2", bits=4)), "no kernels"),
        (network(weights=400 * GIB), "does not fit"),
        (network(container="server", server="box", quant=QuantSpec(method="served")), "server box"),
    ],
)
def test_what_cannot_be_served(model: ModelInfo, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        plan(model, WISH, card())


def test_code_runs_once_the_user_has_read_it() -> None:
    wish = msgspec.structs.replace(WISH, remote_code=True)
    assert "--trust-remote-code" in plan(network(remote_code=True), wish, card()).arguments
    assert "--trust-remote-code" not in plan(network(), wish, card()).arguments


def test_who_may_come_from_outside_is_told() -> None:
    found = plan(network(), msgspec.structs.replace(WISH, host="0.0.0.0"), card())
    assert found.url == "http://127.0.0.1:8000/v1"
    assert any("with the key" in note for note in found.notes)
    assert "KEY" not in found.shell()


def test_the_command_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(network(), msgspec.structs.replace(WISH, name="it's"), card(), card(1, free=1))
    words = shlex.split(found.shell())
    assert words == ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=0", "vllm", *found.arguments]
    own = tmp_path / "bin" / "vllm"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    elsewhere = msgspec.structs.replace(found, program=str(own))
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert " vllm serve" in elsewhere.shell()
    (tmp_path / "other" / "vllm").symlink_to(own)
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert f" {own} serve" in elsewhere.shell()


# transformers


def folder(tmp_path: Path, **changes: object) -> ModelInfo:
    from quantchat.catalog.reader import read_model

    return msgspec.structs.replace(read_model(make_gptq(tmp_path / "alpha")), **changes)


def small(model: ModelInfo, *cards: object, **wishes: object) -> ServePlan:
    wish = Wish(backend="transformers", port=8000, **wishes)  # type: ignore[arg-type]
    return plan_transformers(model, look(*cards), wish, "transformers")  # type: ignore[arg-type]


def test_transformers_serves_on_any_machine(tmp_path: Path) -> None:
    model = folder(tmp_path)
    found = small(model)
    assert list(found.arguments) == [
        *("serve", model.path, "--host", "127.0.0.1", "--port", "8000", "--device", "cpu", "--dtype", "bfloat16")
    ]
    assert not found.keyed
    assert found.model == model.path
    assert found.context == model.context_window
    assert any("no key" in note for note in found.notes)


@pytest.mark.parametrize(
    ("cores", "device", "own", "policy"),
    [(2, "cpu", None, "PASSIVE"), (2, "cpu", "ACTIVE", None), (16, "cpu", None, None), (2, "cuda:0", None, None)],
)
def test_threads_of_a_small_machine_do_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, device: str, own: str | None, policy: str | None
) -> None:
    """Beside other work each token took a second."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv(WAITING, raising=False)
    if own is not None:
        monkeypatch.setenv(WAITING, own)
    assert small(folder(tmp_path), card(), devices=(device,)).environment.get(WAITING) == policy


def test_transformers_takes_a_card(tmp_path: Path) -> None:
    from quantchat.catalog.reader import read_model

    dense = read_model(make_dense(tmp_path / "dense"))
    found = small(dense, card(), card(1))
    assert value_of(found, "--device") == "cuda:0"
    assert value_of(found, "--dtype") == "auto"
    assert value_of(small(dense, card(), card(1), devices=("cuda:1",)), "--device") == "cuda:1"
    assert value_of(small(dense, card(), devices=("cpu",)), "--device") == "cpu"
    both = small(dense, card(), card(1), card(2), devices=("cuda:0", "cuda:2"))
    assert value_of(both, "--device") == "auto"
    assert both.environment["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_transformers_is_given_nothing_that_it_would_load_wrongly(tmp_path: Path) -> None:
    model = folder(tmp_path)
    own_file = msgspec.structs.replace(model.quant, source="quantize_config.json")
    for wrong in (own_file, msgspec.structs.replace(model.quant, lm_head=True)):
        with pytest.raises(ModelError, match=r"wrong"):
            small(msgspec.structs.replace(model, quant=wrong))
    odd = tmp_path / "a@b"
    Path(model.path).rename(odd)
    with pytest.raises(ModelError, match="revision"):
        small(msgspec.structs.replace(model, path=str(odd)))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"host": "0.0.0.0"}, "asks for no key"),
        ({"nodes": 2}, "--nodes is for vLLM"),
        ({"tensor": 2}, "--tensor-parallel-size is for vLLM"),
        ({"context": 99}, "--max-model-len is for vLLM"),
        ({"name": "x"}, "--served-model-name is for vLLM"),
    ],
)
def test_what_is_for_vllm_alone(tmp_path: Path, wishes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        small(folder(tmp_path), **wishes)
