"""Whether a format can run here: from its definition, the kernel table and the packages that are installed."""

from __future__ import annotations

from quantchat.catalog.definitions import Format, Refusal
from quantchat.catalog.packages import satisfied
from quantchat.catalog.problems import problem
from quantchat.domain.kernel_table import CPU_EXTENSION, TABLE, Kernel
from quantchat.domain.kernels import Host, refusal
from quantchat.domain.models import Problem, QuantSpec, Verdict

_ABOVE_ALL = (99, 0)
_USUAL = "Use a GPTQ or AWQ version with 4 bits and groups of 128"
_EXTENSIONS = frozenset(kernel.extension for kernel in TABLE if kernel.extension) | {CPU_EXTENSION}


def judge(definition: Format, spec: QuantSpec) -> Verdict:
    """Say whether models of a format run here. What this machine's device makes of it, the kernel forecast says."""
    refused = _refusal(definition, spec)
    if refused is not None:
        return Verdict(state="cannot", reason=refused.reason)
    package = definition.package
    if package is not None and not satisfied(package):
        reason = f"It needs the package {package.name}. {definition.note}".strip()
        return Verdict(state="with", reason=reason, install=package.install)
    return Verdict(reason=definition.note)


def complaint(definition: Format, spec: QuantSpec, verdict: Verdict) -> Problem | None:
    """Return a verdict as the problem that keeps a model from loading; None if it runs."""
    if verdict.state == "runs":
        return None
    if verdict.state == "with" and definition.package is not None:
        name = definition.package.name
        return problem("package-missing", format=definition.title, package=name, install=verdict.install)
    refused = _refusal(definition, spec)
    if refused is not None and refused.remedy:
        return problem("format-cannot-run-so", format=definition.title, why=refused.reason, remedy=refused.remedy)
    return problem("format-cannot-run", format=definition.title, why=verdict.reason)


def _refusal(definition: Format, spec: QuantSpec) -> Refusal | None:
    if definition.cannot:
        return Refusal(definition.cannot)
    if variant := definition.variants.get(spec.checkpoint_format or ""):
        return variant
    return _without_kernel(spec) if definition.kernels else None


def _without_kernel(spec: QuantSpec) -> Refusal | None:
    """Ask each kernel on the best machine for it, so that only the packing itself can be refused."""
    rows = [kernel for kernel in TABLE if kernel.method == spec.method]
    if not rows or any(refusal(kernel, spec, _best_host(kernel)) is None for kernel in rows):
        return None
    return Refusal("no kernel takes " + _described(spec), _USUAL)


def _best_host(kernel: Kernel) -> Host:
    return Host(
        device=kernel.device,
        capability=kernel.only[0] if kernel.only else _ABOVE_ALL,
        avx512_bf16=True,
        compiler=True,
        nvcc=True,
        offline=False,
        built=_EXTENSIONS,
    )


def _described(spec: QuantSpec) -> str:
    parts = [f"{spec.bits} bits", f"groups of {spec.group_size}", f"the packing {spec.checkpoint_format}"]
    return ", ".join(parts[:2]) + f" and {parts[2]} together"
