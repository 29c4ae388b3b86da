"""Loads a model with explicit devices, dtype and kernel, and checks that what came out is the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from gptqmodel import GPTQModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, AwqConfig, GPTQConfig

from quantchat.domain import kernels, placement
from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.kernel_table import Kernel
from quantchat.domain.memory import cache_bytes
from quantchat.domain.models import ModelInfo
from quantchat.engine import attention, checks, memory, prompt, tensors, threads
from quantchat.engine.bars import transformers_bars
from quantchat.engine.building import blamed, build, is_built
from quantchat.engine.failures import KernelFailed, translated
from quantchat.engine.kernels import probe
from quantchat.engine.kvcache import SessionCache
from quantchat.engine.loaded import LoadedModel
from quantchat.engine.packing import quantization_config
from quantchat.engine.progress import Stages
from quantchat.engine.protocol import Load, LoadProgress, LoadReport
from quantchat.engine.quiet import no_warnings
from quantchat.engine.recommended import take_generation_defaults
from quantchat.engine.warm import default_budgets
from quantchat.errors import KernelError

__all__ = ["KernelFailed", "LoadedModel", "load"]

MIXTURE_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
PLANNED_CONTEXT = 4096
ASKED_FOR = "the setting asks for it"


@dataclass(frozen=True)
class _Case:
    """Where transformers is known to load wrongly, and why."""

    reason: str
    applies: Callable[[ModelInfo, Any], bool]


# Without these, transformers leaves random weights in place or refuses (seen with transformers 5.23).
GPTQMODEL_CASES = (
    _Case("mixture of experts", lambda _, config: any(getattr(config, key, 0) for key in MIXTURE_KEYS)),
    _Case("quantized output head", lambda info, _: info.quant.lm_head),
    _Case("bits per module", lambda info, _: info.quant.dynamic),
)


@dataclass
class _Job:
    """A load under way."""

    command: Load
    stages: Stages
    idle_bytes: int = 0
    config: Any = None
    tensors: Mapping[str, tensors.Tensor] = field(default_factory=dict)
    placement: placement.Placement | None = None
    host: kernels.Host = field(default_factory=kernels.Host)
    kernel: Kernel | None = None
    plan: kernels.Plan = field(default_factory=kernels.Plan)

    @property
    def info(self) -> ModelInfo:
        return self.command.model

    @property
    def devices(self) -> tuple[str, ...]:
        assert self.placement is not None
        return self.placement.devices

    @property
    def device(self) -> str:
        return self.devices[0]

    @property
    def dtype(self) -> torch.dtype:
        dtype = getattr(torch, kernels.preferred_dtype(self.kernel, self.host))
        assert isinstance(dtype, torch.dtype)
        return dtype


def load(command: Load, emit: Callable[[LoadProgress], None]) -> LoadedModel:
    """Load a model and warm it up.

    Raises:
        KernelFailed: if the kernel is at fault.
        LoadError: for everything else that is wrong with the model.
    """
    job = _Job(command, Stages(command.request, emit), memory.resident_bytes())
    with no_warnings():
        _prepare(job)
        return _load(job)


def _prepare(job: _Job) -> None:
    job.stages.enter("reading config")
    folder = Path(job.info.path)
    with translated("The model's configuration cannot be read"):
        job.tensors = tensors.read_tensors(folder)
        job.config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if settings := quantization_config(job.info.quant, job.config):
        job.config.quantization_config = settings
    _place(job)
    job.host = probe(job.devices, is_built)
    if job.info.quant.method in kernels.QUANTIZED_METHODS:
        _choose_kernel(job)


def _place(job: _Job) -> None:
    command, window = job.command, min(job.info.context_window or PLANNED_CONTEXT, PLANNED_CONTEXT)
    on_disk = placement.weigh({name: tensor.nbytes for name, tensor in job.tensors.items()})
    parts = placement.as_loaded(on_disk, job.info.weights)
    kv_layer_bytes = cache_bytes(job.info, window) // max(len(parts.layers), 1)
    job.placement = placement.place(parts, memory.rooms(command.device), kv_layer_bytes, command.placement)
    if layers := job.placement.describe():
        job.stages.enter("placing layers", note=layers)


def _choose_kernel(job: _Job) -> None:
    quant = job.info.quant
    packed = (tensor.shape for name, tensor in job.tensors.items() if name.endswith(".qweight"))
    matrices = kernels.packed_matrices(packed, quant)
    job.plan = kernels.plan(quant, job.host, matrices, job.command.failed)
    wish = kernels.wished(job.command.kernel, quant.method)
    try:
        job.kernel = job.plan.choose(wish)
    except KernelError as error:
        raise KernelFailed(error, job.plan.after(wish) if wish else None) from error
    build(job.kernel, job.plan, job.stages)


def _load(job: _Job) -> LoadedModel:
    job.stages.enter("reading weights", kernel=job.kernel.name if job.kernel else "", note=_placed(job))
    folder = Path(job.info.path)
    with translated("The tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with blamed(job.kernel, job.plan, job.device):
        model, loading = _read_weights(job)
    checks.check_weights(model, job.info, frozenset(job.tensors), loading)
    recommended, eos_ids = take_generation_defaults(model, tokenizer, folder)
    model.eval()
    attention.install()
    job.stages.enter("warming up", note=_placed(job))
    with blamed(job.kernel, job.plan, job.device, model):
        proof = checks.warm_up(model, tokenizer, job.device, lambda: SessionCache(model))
        decode_threads = threads.calibrate(model, job.device)
    memory.settle(model)
    job.stages.leave()
    decoding, why = _decoding(job, proof)
    report = _report(job, model, prompt.template_name(tokenizer), recommended, proof, (decoding, why))
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=job.device,
        window=report.context_window,
        report=report,
        eos_ids=eos_ids,
        decode_threads=decode_threads,
        stop_strings=(prompt.CHATML_END,) if report.template == prompt.FALLBACK else (),
        decoding=decoding,
        decoding_reason=why,
    )


def _placed(job: _Job) -> str:
    return job.placement.describe() if job.placement else ""


def _decoding(job: _Job, proof: checks.Proof) -> tuple[Literal["eager", "generate"], str]:
    if job.command.decoding == "generate":
        return "generate", ASKED_FOR
    return ("generate", proof.fault) if proof.fault else ("eager", "")


def _read_weights(job: _Job) -> tuple[Any, dict[str, Any] | None]:
    bars = transformers_bars(lambda done, total: job.stages.step(done, total, "tensors"))
    with bars, tensors.standard_names(Path(job.info.path)) as folder:
        if job.kernel is not None and _needs_gptqmodel(job, job.kernel):
            return _through_gptqmodel(job, job.kernel, folder), None
        return _through_transformers(job, folder)


def _needs_gptqmodel(job: _Job, kernel: Kernel) -> bool:
    return kernel.transformers_name is None or any(case.applies(job.info, job.config) for case in GPTQMODEL_CASES)


def _through_gptqmodel(job: _Job, kernel: Kernel, folder: Path) -> Any:
    where = {"device": job.device} if len(job.devices) == 1 else {"device_map": _device_map(job)}
    wrapped = GPTQModel.load(str(folder), backend=kernel.name, dtype=job.dtype, trust_remote_code=False, **where)
    return wrapped.model


def _through_transformers(job: _Job, folder: Path) -> tuple[Any, dict[str, Any]]:
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        config=job.config,
        device_map=_device_map(job),
        dtype=job.dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        # Not to forgive them, but to be told which: the check after the load refuses them by name.
        ignore_mismatched_sizes=True,
        **_kernel_option(job),
    )
    return model, loading


def _device_map(job: _Job) -> dict[str, str]:
    assert job.placement is not None
    known = job.placement.device_map()
    if len(job.devices) == 1:
        return known
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(job.config, trust_remote_code=False)
    return placement.complete(known, [name for name, _ in skeleton.named_modules()], job.device)


def _kernel_option(job: _Job) -> dict[str, Any]:
    if job.kernel is None:
        return {}
    bits = job.info.quant.bits or 4
    if job.kernel.method == "gptq":
        return {"quantization_config": GPTQConfig(bits=bits, backend=job.kernel.transformers_name)}
    version = job.info.quant.checkpoint_format or "gemm"
    options = {"bits": bits, "group_size": job.info.quant.group_size or 128, "version": version}
    return {"quantization_config": AwqConfig(**options, backend=job.kernel.transformers_name)}


def _report(
    job: _Job,
    model: Any,
    template: str,
    recommended: SamplingOverrides,
    proof: checks.Proof,
    decoding: tuple[str, str],
) -> LoadReport:
    quantized = list(checks.quantized_modules(model).values())
    name = str(quantized[0].SUPPORTS_BACKENDS[0].value) if quantized else kernels.DENSE
    window = job.info.context_window or getattr(job.config.get_text_config(), "max_position_embeddings", 0)
    refusals = job.plan.ahead_of(job.kernel.name) if job.kernel else ()
    budget = job.command.kv_budget
    return LoadReport(
        path=job.info.path,
        name=job.info.name,
        architecture=type(model).__name__,
        device=job.device,
        dtype=str(model.dtype).removeprefix("torch."),
        kernel=name,
        layers=checks.kernel_counts(model),
        refusals=refusals,
        placement=_placed(job),
        weight_bytes=memory.weight_bytes(model),
        device_bytes=memory.device_bytes(*job.devices),
        idle_bytes=job.idle_bytes,
        context_window=int(window or 0),
        template=template,
        recommended=recommended,
        decoding=decoding[0],
        decoding_reason=decoding[1],
        kv_token_bytes=proof.kv_token_bytes,
        kv_budget=default_budgets(job.device)[0] if budget is None else budget,
        seconds=job.stages.seconds,
        warnings=(kernels.slow_warning(job.kernel, refusals),) if job.kernel and job.kernel.slow else (),
    )
