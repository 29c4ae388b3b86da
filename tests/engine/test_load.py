"""Loads that must work, and loads that must not pass: a random or damaged model is never `Loaded`."""

from __future__ import annotations

import json

import msgspec
import pytest

from engine.rig import Rig, asking
from quantchat.catalog.reader import read_model
from quantchat.domain.models import QuantSpec
from quantchat.engine import protocol as p

pytestmark = pytest.mark.engine
OLD_WEIGHTS = "gptq_model-4bit-32g.safetensors"


@pytest.fixture(scope="module")
def load():
    """Return a function that loads without a worker, to look at the model itself."""
    from quantchat.engine import loader, quiet

    quiet.set_environment()
    quiet.silence()

    def load(path, kernel=None, *, device="cpu", emit=lambda _step: None, **options):
        command = p.Load(request="", model=read_model(path), device=device, kernel=kernel, **options)
        return loader.load(command, emit)

    return load


def logits(loaded):
    import torch

    ids = torch.tensor([loaded.tokenizer("Cats, dogs and rivers")["input_ids"]])
    with torch.no_grad():
        return loaded.model(input_ids=ids).logits[0].float()


def edit_config(path, **changes) -> None:
    config = json.loads((path / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (path / "config.json").write_text(json.dumps(kept))


def edit_weights(path, change) -> None:
    from safetensors.torch import load_file, save_file

    file = path / "model.safetensors"
    tensors = load_file(file)
    save_file(change(tensors), file, metadata={"format": "pt"})


WITHOUT_STEPS = "awq_torch_aten"
"""On CPUs without AVX-512: GPTQModel reads its weights, and does not tell how far it is."""


def code(event: p.Loaded | p.LoadFailed) -> str:
    assert isinstance(event, p.LoadFailed), event
    assert event.error.title
    return event.error.code


def test_ready_names_libraries_and_devices(rig: Rig) -> None:
    assert set(rig.ready.versions) == {"torch", "transformers", "gptqmodel", "optimum"}
    assert rig.ready.devices[-1] == "cpu"


@pytest.mark.parametrize(("kind", "packed"), [("gptq", 14), ("awq", 14), ("dense", 0)])
def test_loads_and_reports(rig: Rig, models, kind: str, packed: int) -> None:
    rig.events.clear()
    loaded = rig.load(models / kind, device="cpu")
    assert isinstance(loaded, p.Loaded), loaded
    report = loaded.report
    assert report.dtype == "bfloat16"
    assert report.template == "model"
    assert report.context_window == 256
    assert sum(report.layers.values()) == 15
    assert report.layers["Linear"] == 15 - packed
    assert report.kernel.startswith(kind)
    assert report.weight_bytes > 0
    assert not report.warnings
    stages = [event.stage for event in rig.events if isinstance(event, p.LoadProgress)]
    assert [stage for stage in dict.fromkeys(stages) if "kernel" not in stage] == [
        "reading config",
        "reading weights",
        "warming up",
    ]
    if report.kernel != WITHOUT_STEPS:
        steps = [event for event in rig.events if isinstance(event, p.LoadProgress) and event.total]
        assert any(event.done == event.total for event in steps)


@pytest.mark.parametrize(
    ("kind", "kernel"),
    [("gptq", "gptq_torch_aten"), ("gptq", "gptq_torch"), ("awq", "awq_torch_aten"), ("awq", "awq_torch")],
)
def test_a_named_kernel_is_taken_and_agrees_with_the_first_choice(load, models, kind: str, kernel: str) -> None:
    import torch

    first, named = load(models / kind), load(models / kind, kernel)
    assert named.report.kernel == kernel
    assert bool(named.report.warnings) == (not kernel.endswith("aten"))
    assert torch.cosine_similarity(logits(first), logits(named)).min() > 0.99


def test_a_kernel_of_another_machine_names_the_next(rig: Rig, models) -> None:
    failed = rig.load(models / "gptq", device="cpu", kernel="gptq_marlin")
    assert code(failed) == "kernel"
    assert failed.next_kernel is not None
    assert isinstance(rig.load(models / "gptq", device="cpu", kernel=failed.next_kernel), p.Loaded)


def test_only_quantize_config_json_gives_the_same_logits(load, models, copy_of) -> None:
    old = copy_of("gptq")
    edit_config(old, quantization_config=None)
    assert (logits(load(models / "gptq")) == logits(load(old))).all()


@pytest.mark.parametrize(
    ("kind", "name"), [("gptq", OLD_WEIGHTS), ("awq", "awq_model.safetensors"), ("dense", "weights.safetensors")]
)
def test_old_weight_file_name(load, models, copy_of, kind: str, name: str) -> None:
    old = copy_of(kind)
    if kind == "gptq":
        edit_config(old, quantization_config=None)
    (old / "model.safetensors").rename(old / name)
    before = sorted(file.name for file in old.iterdir())
    assert read_model(old).loadable
    assert (logits(load(models / kind)) == logits(load(old))).all()
    assert sorted(file.name for file in old.iterdir()) == before


def test_old_names_of_shards(load, models, copy_of) -> None:
    from safetensors.torch import load_file, save_file

    old, stem = copy_of("gptq"), OLD_WEIGHTS.removesuffix(".safetensors")
    tensors, placed = load_file(old / "model.safetensors"), {}
    for number, names in enumerate([sorted(tensors)[::2], sorted(tensors)[1::2]], 1):
        shard = f"{stem}-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, old / shard, metadata={"format": "pt"})
        placed |= dict.fromkeys(names, shard)
    (old / f"{OLD_WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (old / "model.safetensors").unlink()
    assert read_model(old).loadable
    assert (logits(load(models / "gptq")) == logits(load(old))).all()


def test_old_autoawq_config(load, models, copy_of) -> None:
    old = copy_of("awq")
    (old / "quantize_config.json").unlink()
    edit_config(old, quantization_config=None)
    config = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    (old / "quant_config.json").write_text(json.dumps(config))
    assert (logits(load(models / "awq")) == logits(load(old))).all()


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_packed_weights_behind_a_plain_config_are_refused(rig: Rig, copy_of, kind: str) -> None:
    path = copy_of(kind)
    (path / "quantize_config.json").unlink()
    edit_config(path, quantization_config=None)
    info = msgspec.structs.replace(read_model(path), quant=QuantSpec(method="none"))
    rig.worker.submit(p.Load(request="plain", model=info))
    assert code(rig.wait(p.Loaded, p.LoadFailed)) == "load"


def without_one_qweight(tensors):
    return {name: t for name, t in tensors.items() if name != "model.layers.1.mlp.up_proj.qweight"}


def without_a_norm(tensors):
    return {name: t for name, t in tensors.items() if name != "model.norm.weight"}


def renamed(tensors):
    return {name.replace(".mlp.", ".feed_forward."): t for name, t in tensors.items()}


def wrong_shape(tensors):
    name = "model.layers.0.self_attn.q_proj.qweight"
    return tensors | {name: tensors[name][:8].contiguous()}


def not_numbers(tensors):
    return tensors | {"model.norm.weight": tensors["model.norm.weight"] * float("nan")}


def all_zero(tensors):
    return tensors | {"model.norm.weight": tensors["model.norm.weight"] * 0}


@pytest.mark.parametrize("old_name", [False, True], ids=["transformers", "gptqmodel"])
@pytest.mark.parametrize(
    "damage",
    [without_one_qweight, without_a_norm, renamed, wrong_shape, not_numbers, all_zero],
    ids=lambda f: f.__name__,
)
def test_damaged_weights_are_refused(rig: Rig, copy_of, damage, old_name: bool) -> None:
    path = copy_of("gptq")
    edit_weights(path, damage)
    if old_name:
        (path / "model.safetensors").rename(path / OLD_WEIGHTS)
    failed = rig.load(path)
    # Sound numbers that give no answer may be the kernel's doing, so another one is tried first.
    assert code(failed) == ("kernel" if damage is all_zero else "load")
    assert (failed.next_kernel is not None) == (damage is all_zero)
    assert rig.answer()[1].error.code == "no-model"


def test_nan_weights_are_the_models_fault_not_the_kernels(rig: Rig, copy_of) -> None:
    path = copy_of("gptq")
    edit_weights(path, not_numbers)
    failed = rig.load(path)
    assert code(failed) == "load"
    assert failed.next_kernel is None


@pytest.mark.parametrize("kind", ["gptq", "dense"])
def test_truncated_weights_are_named(rig: Rig, copy_of, kind: str) -> None:
    path = copy_of(kind)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    failed = rig.load(path)
    assert code(failed) == "load"
    assert "model.safetensors" in failed.error.title


def test_a_folder_that_went_away(rig: Rig, models, tmp_path) -> None:
    info = msgspec.structs.replace(read_model(models / "gptq"), path=str(tmp_path / "gone"))
    rig.worker.submit(p.Load(request="gone", model=info))
    assert code(rig.wait(p.Loaded, p.LoadFailed)) == "load"


def test_a_broken_tokenizer(rig: Rig, copy_of) -> None:
    path = copy_of("gptq")
    (path / "tokenizer.json").write_text("{}")
    assert code(rig.load(path)) == "load"


def test_recommended_sampling_is_read_and_not_applied(rig: Rig, copy_of) -> None:
    path = copy_of("gptq")
    recommended = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [1, 4]}
    (path / "generation_config.json").write_text(json.dumps(recommended))
    report = rig.load(path).report
    assert (report.recommended.temperature, report.recommended.top_k, report.recommended.top_p) == (0.6, 20, None)
    assert rig.answer()[0] == rig.answer()[0]


def test_unload_says_what_came_back_and_leaves_no_model(gptq: Rig) -> None:
    gptq.worker.submit(p.Unload(request="bye"))
    unloaded = gptq.wait(p.Unloaded, p.RequestFailed)
    assert isinstance(unloaded, p.Unloaded)
    assert unloaded.freed >= 0
    assert gptq.answer(asking())[1].error.code == "no-model"


def test_nothing_keeps_an_unloaded_model(load, models) -> None:
    import weakref

    loaded = load(models / "gptq")
    logits(loaded)
    reference = weakref.ref(loaded.model)
    del loaded
    assert reference() is None


def refused(report: p.LoadReport) -> dict[str, str]:
    return {refusal.kernel: refusal.reason for refusal in report.refusals}


def test_kernels_that_failed_before_are_passed_over_and_reported(load, models) -> None:
    failed = p.KernelRefusal("gptq_torch_cpu_avx512", "failed after 3 s: it broke")
    report = load(models / "gptq", failed=(failed,)).report
    assert report.kernel == "gptq_torch_aten"
    assert failed in report.refusals


def test_a_kernel_that_cannot_be_built_names_the_next(load, models, monkeypatch) -> None:
    from gptqmodel import extension

    from quantchat.domain.kernels import Host
    from quantchat.engine import building, loader

    words = "ninja: build stopped\n/tmp/x.cu:3: error: no such thing\nmake: *** wait"
    monkeypatch.setattr(building, "is_built", lambda _name: False)
    monkeypatch.setattr(extension, "load", lambda name: {name: False})
    monkeypatch.setattr(extension, "error", lambda _name: words)
    steps: list[p.LoadProgress] = []
    host = Host(device="cpu", avx512_bf16=True, compiler=True)
    monkeypatch.setattr(loader, "probe", lambda *_: host)
    with pytest.raises(building.KernelFailed) as caught:
        load(models / "gptq", emit=steps.append)
    assert caught.value.report.code == "kernel-build"
    assert caught.value.next_kernel == "gptq_torch_aten"
    assert caught.value.failed is not None
    assert "error: no such thing" in caught.value.failed.reason
    (building_step,) = [step for step in steps if step.stage == "building kernel"]
    assert building_step.kernel == "gptq_torch_cpu_avx512"
    assert "once" in building_step.note


def test_a_kernel_that_raises_in_the_warm_up_names_the_next(load, models, monkeypatch) -> None:
    from gptqmodel.nn_modules.qlinear.torch_aten_kernel import TorchAtenLinear

    from quantchat.engine.building import KernelFailed

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(TorchAtenLinear, "forward", broken)
    with pytest.raises(KernelFailed) as caught:
        load(models / "gptq", "gptq_torch_aten")
    assert caught.value.next_kernel == "gptq_torch"
    assert caught.value.failed is not None
    assert caught.value.failed.kernel == "gptq_torch_aten"
    assert "illegal memory access" in caught.value.failed.reason


def test_a_kernel_that_computes_no_numbers_names_the_next(load, models, monkeypatch) -> None:
    from gptqmodel.nn_modules.qlinear.torch_aten_kernel import TorchAtenLinear

    from quantchat.engine.building import KernelFailed

    forward = TorchAtenLinear.forward
    monkeypatch.setattr(TorchAtenLinear, "forward", lambda self, x: forward(self, x) * float("inf"))
    with pytest.raises(KernelFailed) as caught:
        load(models / "gptq", "gptq_torch_aten")
    assert caught.value.next_kernel == "gptq_torch"
    assert "NaN or infinite" in caught.value.failed.reason


def test_the_report_tells_decoding_and_the_price_of_a_token(load, models) -> None:
    own = load(models / "gptq", kv_budget=12345)
    assert (own.decoding, own.report.decoding, own.report.decoding_reason) == ("eager", "eager", "")
    assert own.report.kv_budget == 12345
    config = own.model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert own.report.kv_token_bytes == 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2
    reference = load(models / "gptq", decoding="generate")
    assert (reference.decoding, reference.report.decoding) == ("generate", "generate")
    assert reference.report.decoding_reason


def test_a_model_that_our_loop_does_not_serve_is_loaded_with_the_reason(load, models, monkeypatch) -> None:
    from quantchat.engine import checks

    proof = checks.Proof(fault="its KV cache failed")
    monkeypatch.setattr(checks, "warm_up", lambda *_: proof)
    loaded = load(models / "gptq")
    assert (loaded.decoding, loaded.decoding_reason) == ("generate", "its KV cache failed")
    assert loaded.report.decoding_reason == "its KV cache failed"


def test_a_device_that_is_not_there_is_named(load, models) -> None:
    from quantchat.errors import LoadError

    with pytest.raises(LoadError, match=r"There is no device cuda:7"):
        load(models / "gptq", device="cuda:7")


@pytest.mark.parametrize("kind", ["gptq", "dense"])
def test_an_explicit_map_of_every_layer_loads_the_same_model(load, models, monkeypatch, kind: str) -> None:
    """Two devices cannot be had here; a map that names each layer and each module around them can."""
    from quantchat.domain import placement
    from quantchat.engine import loader

    whole = logits(load(models / kind))
    maps: list[dict[str, str]] = []
    complete = placement.complete

    def noted(*arguments: object) -> dict[str, str]:
        maps.append(complete(*arguments))
        return maps[-1]

    def halves(parts, rooms, kv_layer_bytes, _wanted):
        count = len(parts.layers)
        cut = [(0, count // 2), (count // 2, count - count // 2)]
        blocks = [
            placement.Block(device="cpu", first=first, count=many, weight_bytes=0, kv_bytes=0) for first, many in cut
        ]
        return placement.Placement(parts=parts, blocks=tuple(blocks))

    monkeypatch.setattr(loader.placement, "complete", noted)
    monkeypatch.setattr(loader.placement, "place", halves)
    loaded = load(models / kind)
    assert (logits(loaded) == whole).all()
    assert "layers 0" in loaded.report.placement or "layer 0" in loaded.report.placement
    assert {"model.embed_tokens", "model.norm", "model.layers.0", "model.rotary_emb", "lm_head"} <= set(maps[0])
