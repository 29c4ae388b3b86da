"""Which kernel the models would get here; finds those that would run on the slow path, and what would change that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantchat.domain.kernel_table import Kernel
from quantchat.domain.kernels import (
    BUILD_TOOLS,
    CUDA_TOOLS,
    QUANTIZED_METHODS,
    TRITON_TOOLS,
    Host,
    Plan,
    plan,
    sentence,
    wished,
)
from quantchat.domain.loading import KernelRefusal
from quantchat.domain.models import ModelInfo
from quantchat.errors import KernelError, QuantchatError
from quantchat.services.doctor.compilers import look_at_compiler, look_at_nvcc
from quantchat.services.doctor.findings import Finding
from quantchat.services.doctor.machine import Machine
from quantchat.services.doctor.mending import here

LISTED = 12
"""Models with a finding of their own; a box may hold hundreds that are slow for one reason."""


def look_at_models(machine: Machine) -> Iterator[Finding]:
    """Go through the kernel table for each model, with what the libraries said of this machine."""
    try:
        models = machine.models()
    except QuantchatError as error:
        words = f"{error.report.title}. {error.report.detail}"
        yield Finding(id="model", title="Model", level="red", found=words, fix="quantchat models")
        return
    # Only packed weights need to know what the libraries say of this machine, which takes them seconds.
    packed = any(model.loadable and model.quant.method in QUANTIZED_METHODS for model in models)
    host = machine.probe().host if packed else None
    judged = [finding for model in models for finding in judge(model, host, machine)]
    told = [finding for finding in judged if machine.named or finding.level != "green"]
    yield from told[:LISTED]
    if len(told) > LISTED:
        words = f"{len(told) - LISTED} more models have the same or similar findings."
        yield Finding(id="model.more", title="Models", level="yellow", found=words, fix="quantchat doctor --json")
    if not machine.named:
        yield _summary(models, judged, host)


def judge(model: ModelInfo, host: Host | None, machine: Machine) -> Iterator[Finding]:
    """Say how a model would run; of one that cannot be loaded only when it was asked for by name."""
    if not model.loadable:
        yield from _unloadable(model) if machine.named else ()
    elif model.quant.method not in QUANTIZED_METHODS:
        yield Finding(id="model", title=model.name, found=f"{model.quant.label()}: needs no kernel of its own")
    elif host is not None:
        yield _kernel(model, host, machine)


def _kernel(model: ModelInfo, host: Host, machine: Machine) -> Finding:
    kernels = plan(model.quant, host, model.weights.matrices)
    wish = wished(machine.kernel, model.quant.method)
    try:
        kernel = kernels.choose(wish)
    except KernelError as error:
        if wish is None or not kernels.candidates:
            return Finding(id="model.kernel", title=model.name, level="red", found=error.report.detail)
        words = f"config.toml asks for the kernel {wish}. {error.report.detail}"
        return Finding(id="model.kernel", title=model.name, level="red", found=words)
    asked = f" (config.toml asks for {wish})" if wish else ""
    missed = _mendable(kernels, kernel)
    runs = f"{model.quant.label()} runs on {kernel.name}{asked}"
    if kernel.slow:
        why = " ".join(map(sentence, kernels.ahead_of(kernel.name))) or "A faster one would run."
        words = f"{runs}, the slow path: ten or more times slower. {why}"
        return Finding(id="model.slow", title=model.name, level="yellow", found=words, fix=_fix(missed, machine))
    if missed:
        words = f"{runs}; {' '.join(map(sentence, missed))}"
        return Finding(id="model.kernel", title=model.name, level="yellow", found=words, fix=_fix(missed, machine))
    return Finding(id="model.kernel", title=model.name, found=runs)


def _mendable(kernels: Plan, kernel: Kernel) -> list[KernelRefusal]:
    """The faster kernels for which only a tool is missing."""
    tools = (BUILD_TOOLS, CUDA_TOOLS, TRITON_TOOLS)
    return [refusal for refusal in kernels.ahead_of(kernel.name) if refusal.remedy in tools]


def _fix(refusals: Sequence[KernelRefusal], machine: Machine) -> str:
    """Return the commands of the findings about the tools that are missing."""
    remedies = {refusal.remedy for refusal in refusals}
    found: list[Finding] = []
    if remedies & {BUILD_TOOLS, TRITON_TOOLS}:
        # Only Triton wants one for C.
        found += (each for each in look_at_compiler(machine) if each.id != "compiler.c" or TRITON_TOOLS in remedies)
    if CUDA_TOOLS in remedies:
        found += look_at_nvcc(machine)
    return "\n".join(dict.fromkeys(finding.fix for finding in found if finding.fix))


def _unloadable(model: ModelInfo) -> Iterator[Finding]:
    for problem in model.errors:
        fix = here(model.verdict.install) if problem.code == "package-missing" else ""
        words = problem.cause if fix else f"{problem.cause.rstrip('.')}. {problem.remedy}"
        yield Finding(id=f"model.{problem.code}", title=model.name, level="red", found=words, fix=fix)


def _summary(models: Sequence[ModelInfo], judged: Sequence[Finding], host: Host | None) -> Finding:
    fine = sum(finding.level == "green" for finding in judged)
    broken = sum(not model.loadable for model in models)
    if not models:
        return Finding(id="models", title="Models", found="none were found; `quantchat demo` makes a small one")
    if host is None and any(model.quant.method in QUANTIZED_METHODS for model in models if model.loadable):
        words = f"{len(models)} were found; which kernels they get is not known before the libraries can be imported."
        return Finding(id="models", title="Models", level="yellow", found=words)
    words = f"{fine} of {len(models)} run on the fastest kernel of this machine"
    if broken:
        words = f"{words}; {broken} cannot be loaded, `quantchat models` says why"
    return Finding(id="models", title="Models", found=words)
