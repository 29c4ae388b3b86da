"""Loads a model with the library of another interpreter, and checks that what came out is the model."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoTokenizer

from quantchat.domain.generation import SamplingOverrides
from quantchat.engine import memory, prompt, tensors, threads
from quantchat.engine.backends.retired import weights
from quantchat.engine.backends.retired.cache import RetiredCache
from quantchat.engine.backends.retired.folder import readable
from quantchat.engine.backends.retired.libraries import CURRENT, Loader, Source, loader_for
from quantchat.engine.failures import first_lines, translated
from quantchat.engine.loaded import LoadedModel
from quantchat.engine.pace import DecodeThreads
from quantchat.engine.progress import Stages
from quantchat.engine.protocol import Load, LoadProgress, LoadReport
from quantchat.engine.quiet import no_warnings
from quantchat.engine.recommended import take_generation_defaults
from quantchat.engine.warm import default_budgets
from quantchat.engine.warmup import warm_up
from quantchat.errors import LoadError, QuantchatError

if TYPE_CHECKING:
    from quantchat.engine.kvcache import SessionCache

IGNORED = "The settings `kernel` and `placement` mean nothing to {package}, which chooses by itself, on one device."
EMPTY = "meta tensor"
"""In torch's words: something was to be moved that has no numbers yet."""
ASKED_FOR = "the setting asks for it"


@dataclass(kw_only=True)
class RetiredModel(LoadedModel):
    """A model that a retired library computes."""

    def new_cache(self) -> SessionCache:
        """Return an empty KV cache for a session."""
        return _as_session_cache(RetiredCache())


def _as_session_cache(cache: RetiredCache) -> SessionCache:
    """It is all that turns ask of one; transformers 4 has not the classes that `SessionCache` is made of."""
    return cast("SessionCache", cache)


@dataclass
class _Job:
    """A load under way."""

    command: Load
    loader: Loader
    source: Source
    stages: Stages
    idle_bytes: int


@dataclass
class _Warmed:
    """What the warm-up showed; `fault` is why our own loop cannot serve the model."""

    fault: str
    token_bytes: int
    threads: DecodeThreads


def load(command: Load, emit: Callable[[LoadProgress], None]) -> RetiredModel:
    """Load a model and warm it up.

    Raises:
        LoadError: if it cannot be loaded, or was loaded wrongly.
    """
    idle, stages = memory.resident_bytes(), Stages(command.request, emit)
    with no_warnings(), tempfile.TemporaryDirectory(prefix="quantchat-model-") as scratch:
        stages.enter("reading config")
        loader = loader_for(command.model)
        device = memory.rooms(command.device)[0].device
        tensors.read_tensors(Path(command.model.path))
        with translated("The model's configuration cannot be read"):
            folder = readable(command.model, Path(scratch))
        dtype = torch.bfloat16 if device == "cpu" else torch.float16
        return _load(_Job(command, loader, Source(command.model, folder, device, dtype), stages, idle))


def _load(job: _Job) -> RetiredModel:
    library, source = job.loader.library, job.source
    job.stages.enter(f"importing {library.package}")
    with _explained(job):
        import_module(library.module)
        job.stages.enter("reading weights")
        model = job.loader.load(source)
    weights.check(model, source.folder)
    with translated("The tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    recommended, eos_ids = take_generation_defaults(model, tokenizer, source.folder)
    model.eval()
    job.stages.enter("warming up")
    with _explained(job):
        warmed = _warm(job, model, tokenizer)
    memory.settle(model)
    job.stages.leave()
    report = _report(job, model, prompt.template_name(tokenizer), recommended, warmed)
    return RetiredModel(
        model=model,
        tokenizer=tokenizer,
        device=source.device,
        window=report.context_window,
        report=report,
        eos_ids=eos_ids,
        decode_threads=warmed.threads,
        stop_strings=(prompt.CHATML_END,) if report.template == prompt.FALLBACK else (),
        decoding="generate" if warmed.fault else "eager",
        decoding_reason=warmed.fault,
    )


def _warm(job: _Job, model: Any, tokenizer: Any) -> _Warmed:
    caches: list[RetiredCache] = []

    def new_cache() -> SessionCache:
        caches.append(RetiredCache())
        return _as_session_cache(caches[-1])

    proof = warm_up(model, tokenizer, job.source.device, new_cache)
    token_bytes = 0 if proof.fault else caches[0].nbytes // len(caches[0].ids)
    fault = ASKED_FOR if job.command.decoding == "generate" else proof.fault
    return _Warmed(fault, token_bytes, threads.calibrate(model, job.source.device))


@contextmanager
def _explained(job: _Job) -> Iterator[None]:
    """Tell full memory from a library that does not go with the others of its interpreter, or with the model."""
    package = job.loader.library.package
    try:
        yield
    except QuantchatError:
        raise
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise memory.out_of_memory(job.source.device, LoadError, error) from error
        if isinstance(error, ImportError):
            doctor = "`quantchat doctor` tells what that interpreter holds."
            raise LoadError(f"{package} cannot be imported", first_lines(error), doctor, code="libraries") from error
        if EMPTY in str(error):
            raise LoadError("The model's files lack weights", first_lines(error), tensors.DAMAGED_REMEDY) from error
        raise LoadError(f"{package} cannot load {job.source.info.name}", first_lines(error), CURRENT) from error


def _report(job: _Job, model: Any, template: str, recommended: SamplingOverrides, warmed: _Warmed) -> LoadReport:
    command, info, device = job.command, job.source.info, job.source.device
    window = info.context_window or getattr(model.config.get_text_config(), "max_position_embeddings", 0)
    return LoadReport(
        path=info.path,
        name=info.name,
        architecture=type(model).__name__,
        device=device,
        dtype=str(job.source.dtype).removeprefix("torch."),
        kernel=kernel_name(job.loader, model),
        layers=_layers(model),
        weight_bytes=memory.weight_bytes(model),
        device_bytes=memory.device_bytes(device),
        idle_bytes=job.idle_bytes,
        context_window=int(window or 0),
        template=template,
        recommended=recommended,
        decoding="generate" if warmed.fault else "eager",
        decoding_reason=warmed.fault,
        kv_token_bytes=warmed.token_bytes,
        kv_budget=default_budgets(device)[0] if command.kv_budget is None else command.kv_budget,
        seconds=job.stages.seconds,
        warnings=tuple(_warnings(job)),
    )


def _warnings(job: _Job) -> Iterator[str]:
    if job.source.on_cpu and job.loader.slow:
        yield job.loader.slow
    if job.command.kernel or job.command.placement:
        yield IGNORED.format(package=job.loader.library.package)


def _layers(model: Any) -> dict[str, int]:
    packed = weights.packed_modules(model).values()
    dense = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return dict(Counter(type(module).__name__ for module in (*packed, *dense)))


def kernel_name(loader: Loader, model: Any) -> str:
    """Name what multiplies by the packed weights: `auto-gptq cuda_old`, `autoawq WQLinear_IPEX`, or `dense`."""
    kind = next((type(module) for module in weights.packed_modules(model).values()), None)
    if kind is None:
        return "dense"
    # All of auto-gptq's classes have one name, and a module each: qlinear_cuda_old, qlinear_exllama, ...
    own = kind.__module__.rpartition(".")[2].removeprefix("qlinear_") if kind.__name__ == "QuantLinear" else ""
    return f"{loader.library.package} {own or kind.__name__}"
