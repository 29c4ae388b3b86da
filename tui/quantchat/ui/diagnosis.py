"""A loaded model in words: which kernel runs, which do not and why, and what its load cost."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.domain.memory import format_bytes
from quantchat.engine.protocol import KernelRefusal, LoadReport

LABEL = 10
"""Columns of the names on the left."""
DECODING = {
    "graph": "captured CUDA graph of a step",
    "eager": "quantchat's own loop",
    "generate": "transformers' generate, without KV reuse",
}


def kernel_text(report: LoadReport) -> str:
    """Describe a loaded model in lines to read or to copy."""
    facts = [f"{label:<{LABEL}}{words}" for label, words in _facts(report) if words]
    parts = ["\n".join(facts), _refused(report.refusals), "\n".join(report.warnings)]
    return "\n\n".join(part for part in parts if part)


def _facts(report: LoadReport) -> Iterator[tuple[str, str]]:
    yield "Model", f"{report.name} ({report.architecture})"
    yield "Kernel", f"{report.kernel} on {report.device}"
    yield "Layers", ", ".join(f"{count} {kind}" for kind, count in report.layers.items())
    yield "Dtype", report.dtype
    yield "Placement", report.placement
    yield "Decoding", _decoding(report)
    yield "KV cache", _kv_cache(report)
    yield "Memory", f"{format_bytes(report.weight_bytes)} weights, {format_bytes(report.device_bytes)} in all"
    yield "Load", _seconds(report.seconds)


def _decoding(report: LoadReport) -> str:
    how = DECODING.get(report.decoding, report.decoding)
    return f"{how}: {report.decoding_reason}" if report.decoding_reason else how


def _kv_cache(report: LoadReport) -> str:
    if not report.kv_token_bytes:
        return ""
    kept = report.kv_budget and report.decoding != "generate"
    budget = f", {format_bytes(report.kv_budget)} for all sessions" if kept else ""
    return f"{format_bytes(report.kv_token_bytes)} per token{budget}"


def _seconds(stages: dict[str, float]) -> str:
    each = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    return f"{sum(stages.values()):.1f} s: {each}" if stages else ""


def _refused(refusals: tuple[KernelRefusal, ...]) -> str:
    if not refusals:
        return "No faster kernel was left out."
    lines = ["Faster kernels that do not run here, best first:"]
    for refusal in refusals:
        lines.append(f"- {refusal.kernel}: {refusal.reason}")
        lines += [f"  {refusal.remedy}"] if refusal.remedy else []
    return "\n".join(lines)
