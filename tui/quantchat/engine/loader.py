"""Loads a model with an explicit device, dtype and kernel, and checks that what came out is the model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from gptqmodel import GPTQModel, extension
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, AwqConfig, GenerationConfig, GPTQConfig

from quantchat.domain.generation import SamplingOverrides
from quantchat.domain.models import ModelInfo
from quantchat.engine import checks, kernels, memory, prompt, threads
from quantchat.engine.bars import transformers_bars
from quantchat.engine.progress import Stages
from quantchat.engine.protocol import KernelRefusal, LoadReport
from quantchat.engine.quiet import no_warnings
from quantchat.errors import KernelError, LoadError, ModelError, QuantchatError

MIXTURE_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
SLOW_WARNING = (
    "The kernel {kernel} unpacks the weights for every token and is ten or more times slower than the others. "
    "A 4-bit GPTQ or AWQ version of the model would be fast here."
)

WEIGHT_FAULTS = ("Missing required quantized weights", "set a tensor of shape")
"""In the words of GPTQModel and accelerate: the files are wrong, and no other kernel would help."""


class KernelFailed(KernelError):
    """A kernel failed; `next_kernel` is the candidate after it, for a fresh engine process."""

    def __init__(self, error: QuantchatError, next_kernel: str | None) -> None:
        super().__init__(error.report.title, error.report.detail, error.report.remedy)
        self.next_kernel = next_kernel


@dataclass
class LoadedModel:
    """A model that passed its checks.

    Attributes:
        window: Context window in tokens, 0 if unknown.
        eos_ids: Tokens that end an answer.
        stop_strings: Texts that end an answer because the fallback template ends turns with them.
    """

    model: Any
    tokenizer: Any
    device: str
    window: int
    report: LoadReport
    eos_ids: frozenset[int]
    stop_strings: tuple[str, ...] = ()
    decode_threads: threads.DecodeThreads = field(default_factory=threads.DecodeThreads)


@dataclass(frozen=True)
class _Case:
    """Where transformers is known to load wrongly, and why."""

    reason: str
    applies: Callable[[ModelInfo, Any], bool]


# Without these, transformers leaves random weights in place or refuses (seen with transformers 5.23).
GPTQMODEL_CASES = (
    _Case("old weight file names", lambda info, _: not _standard_names(Path(info.path))),
    _Case("mixture of experts", lambda _, config: any(getattr(config, key, 0) for key in MIXTURE_KEYS)),
    _Case("quantized output head", lambda info, _: info.quant.lm_head),
    _Case("bits per module", lambda info, _: info.quant.dynamic),
)


@dataclass
class _Job:
    info: ModelInfo
    device: str
    stages: Stages
    config: Any = None
    names: frozenset[str] = frozenset()
    kernel: kernels.Kernel | None = None
    plan: kernels.Plan = field(default_factory=lambda: kernels.Plan(candidates=(), refusals=()))


def load(
    info: ModelInfo, device: str | None, kernel: str | None, progress: Callable[[str, int, int, str], None]
) -> LoadedModel:
    """Load a model and warm it up.

    Args:
        info: The model as the catalog read it.
        device: `cpu` or `cuda:<n>`; None takes the first GPU, else the CPU.
        kernel: A name of the kernel table; None takes the first candidate.
        progress: Called with stage, done, total (0: unknown) and unit.

    Raises:
        KernelFailed: if the kernel is at fault.
        LoadError: for everything else that is wrong with the model.
    """
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    job = _Job(info, device, Stages(progress))
    with no_warnings():
        _prepare(job, kernel)
        return _load(job)


def _prepare(job: _Job, kernel: str | None) -> None:
    job.stages.enter("reading config")
    folder = Path(job.info.path)
    with _translated("The model's configuration cannot be read"):
        job.names = checks.tensor_names(folder)
        job.config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _fill_quantization_config(job)
    if job.info.quant.method not in kernels.QUANTIZED_METHODS:
        return
    job.plan = kernels.plan(job.info.quant, kernels.probe(job.device, _is_built))
    try:
        job.kernel = job.plan.choose(kernel)
    except KernelError as error:
        raise KernelFailed(error, job.plan.after(kernel or "") if kernel else None) from error
    _build(job, job.kernel)


def _fill_quantization_config(job: _Job) -> None:
    """Tell transformers what older folders keep in a file of their own; it would load random weights otherwise."""
    if job.info.quant.method != "none" and getattr(job.config, "quantization_config", None) is None:
        job.config.quantization_config = dict(job.info.quant.raw)


def _build(job: _Job, kernel: kernels.Kernel) -> None:
    if kernel.extension is None:
        return
    job.stages.enter("building kernel")
    if not extension.load(kernel.extension)[kernel.extension]:
        error = KernelError(f"The kernel {kernel.name} could not be built", extension.error(kernel.extension)[-500:])
        raise KernelFailed(error, job.plan.after(kernel.name))


def _is_built(name: str) -> bool:
    """Whether an extension is in the cache: a private corner of GPTQModel, so any surprise means no."""
    try:
        built = extension._extension_for_name(name)
        return any(path.is_file() for path in built._candidate_binary_paths(built.build_root()))
    except Exception:  # noqa: BLE001 - see above
        return False


def _load(job: _Job) -> LoadedModel:
    job.stages.enter("reading weights")
    with _translated("The tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(job.info.path, local_files_only=True, trust_remote_code=False)
    with _blamed(job, None):
        model, loading = _read_weights(job)
    checks.check_weights(model, job.info, job.names, loading)
    recommended, eos_ids = _take_generation_defaults(model, tokenizer, Path(job.info.path))
    model.eval()
    job.stages.enter("warming up")
    with _blamed(job, model):
        checks.warm_up(model, tokenizer, job.device)
        decode_threads = threads.calibrate(model, job.device)
    job.stages.leave()
    fallback = prompt.template_name(tokenizer) == prompt.FALLBACK
    report = _report(job, model, prompt.template_name(tokenizer), recommended)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=job.device,
        window=report.context_window,
        report=report,
        eos_ids=eos_ids,
        decode_threads=decode_threads,
        stop_strings=(prompt.CHATML_END,) if fallback else (),
    )


def _read_weights(job: _Job) -> tuple[Any, dict[str, Any] | None]:
    with transformers_bars(lambda done, total: job.stages.step(done, total, "tensors")):
        if job.kernel is not None and _needs_gptqmodel(job, job.kernel):
            return _through_gptqmodel(job, job.kernel), None
        return _through_transformers(job)


def _needs_gptqmodel(job: _Job, kernel: kernels.Kernel) -> bool:
    return kernel.transformers_name is None or any(case.applies(job.info, job.config) for case in GPTQMODEL_CASES)


def _standard_names(folder: Path) -> bool:
    return (folder / checks.STANDARD_FILE).is_file() or (folder / checks.STANDARD_INDEX).is_file()


def _through_gptqmodel(job: _Job, kernel: kernels.Kernel) -> Any:
    wrapped = GPTQModel.load(
        job.info.path, device=job.device, backend=kernel.name, dtype=_dtype(job), trust_remote_code=False
    )
    return wrapped.model


def _through_transformers(job: _Job) -> tuple[Any, dict[str, Any]]:
    model, loading = AutoModelForCausalLM.from_pretrained(
        job.info.path,
        config=job.config,
        device_map={"": job.device},
        dtype=_dtype(job),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        # Not to forgive them, but to be told which: the check after the load refuses them by name.
        ignore_mismatched_sizes=True,
        **_kernel_option(job),
    )
    return model, loading


def _kernel_option(job: _Job) -> dict[str, Any]:
    if job.kernel is None:
        return {}
    bits = job.info.quant.bits or 4
    if job.kernel.method == "gptq":
        return {"quantization_config": GPTQConfig(bits=bits, backend=job.kernel.transformers_name)}
    version = job.info.quant.checkpoint_format or "gemm"
    options = {"bits": bits, "group_size": job.info.quant.group_size or 128, "version": version}
    return {"quantization_config": AwqConfig(**options, backend=job.kernel.transformers_name)}


def _dtype(job: _Job) -> torch.dtype:
    """Float16 for packed weights on a GPU, as Marlin is compiled twice for bf16; on the CPU it is ten times slower."""
    return torch.float16 if job.kernel is not None and job.device.startswith("cuda") else torch.bfloat16


def _take_generation_defaults(model: Any, tokenizer: Any, folder: Path) -> tuple[SamplingOverrides, frozenset[int]]:
    """Read what the model recommends, then clear it in the model: a turn says everything itself."""
    values = _read_json(folder / "generation_config.json")
    ends = [values.get("eos_token_id"), model.generation_config.eos_token_id, tokenizer.eos_token_id]
    if prompt.template_name(tokenizer) == prompt.FALLBACK:
        ends.append(tokenizer.get_vocab().get(prompt.CHATML_END))
    flat = [token for end in ends for token in (end if isinstance(end, list) else [end])]
    model.generation_config = GenerationConfig()
    return _recommended(values), frozenset(token for token in flat if isinstance(token, int))


def _recommended(values: dict[str, Any]) -> SamplingOverrides:
    wanted = {name: values[name] for name in ("temperature", "top_p", "top_k", "repetition_penalty") if name in values}
    if values.get("do_sample") is False:
        wanted = {"temperature": 0.0} | {k: v for k, v in wanted.items() if k == "repetition_penalty"}
    try:
        return msgspec.convert(wanted, SamplingOverrides)
    except msgspec.ValidationError:
        return SamplingOverrides()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _report(job: _Job, model: Any, template: str, recommended: SamplingOverrides) -> LoadReport:
    quantized = list(checks.quantized_modules(model).values())
    name = str(quantized[0].SUPPORTS_BACKENDS[0].value) if quantized else kernels.DENSE
    window = job.info.context_window or getattr(job.config.get_text_config(), "max_position_embeddings", 0)
    refusals: tuple[KernelRefusal, ...] = job.plan.ahead_of(job.kernel.name) if job.kernel else ()
    return LoadReport(
        path=job.info.path,
        name=job.info.name,
        architecture=type(model).__name__,
        device=job.device,
        dtype=str(model.dtype).removeprefix("torch."),
        kernel=name,
        layers=checks.kernel_counts(model),
        refusals=refusals,
        weight_bytes=memory.weight_bytes(model),
        device_bytes=memory.device_bytes(job.device),
        context_window=int(window or 0),
        template=template,
        recommended=recommended,
        seconds=job.stages.seconds,
        warnings=(SLOW_WARNING.format(kernel=name),) if job.kernel and job.kernel.slow else (),
    )


@contextmanager
def _translated(title: str) -> Iterator[None]:
    """Explain what the libraries raise over a folder's files."""
    try:
        yield
    except QuantchatError:
        raise
    except Exception as error:
        raise LoadError(title, _first_lines(error), checks.DAMAGED_REMEDY) from error


@contextmanager
def _blamed(job: _Job, model: Any) -> Iterator[None]:
    """Tell a failed kernel, which another one may replace, from a damaged model and full memory."""
    started = time.perf_counter()
    try:
        yield
    except ModelError:
        raise
    except LoadError as error:
        if job.kernel is None or model is None or not checks.all_finite(model):
            raise
        raise KernelFailed(error, job.plan.after(job.kernel.name)) from error
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise memory.out_of_memory(job.device, LoadError) from error
        if job.kernel is None or any(words in str(error) for words in WEIGHT_FAULTS):
            raise LoadError("The model cannot be loaded", _first_lines(error), checks.DAMAGED_REMEDY) from error
        title = f"The kernel {job.kernel.name} failed after {time.perf_counter() - started:.0f} s"
        raise KernelFailed(KernelError(title, _first_lines(error)), job.plan.after(job.kernel.name)) from error


def _first_lines(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"
