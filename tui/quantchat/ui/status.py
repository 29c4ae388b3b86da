"""What the status bar, the header and the activity line say: plain functions from state to text."""

from __future__ import annotations

import time

from textual.content import Content

from quantchat.domain.chat import Session
from quantchat.domain.memory import GIB, format_bytes
from quantchat.domain.text import clean
from quantchat.engine.protocol import LoadReport
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.services.library import LoadStatus
from quantchat.services.memory import MemoryView
from quantchat.services.turns import Turn

BAR = 8


def meter(share: float, cells: int = BAR) -> str:
    """Draw a share of 0 to 1 as a bar."""
    full = round(min(max(share, 0.0), 1.0) * cells)
    return "█" * full + "░" * (cells - full)


def kernel_name(kernel: str) -> str:
    """A kernel's name without what the row already says: `gptq_torch_cpu_avx512` becomes `avx512`."""
    for prefix in ("gptq_", "awq_", "torch_cpu_", "torch_"):
        kernel = kernel.removeprefix(prefix) or kernel
    return kernel


def gib(count: int) -> str:
    return f"{count / GIB:.1f}"


def device_text(device: GpuDevice) -> str:
    """A GPU in one piece: bar, used and total GiB, this engine's share, temperature, power."""
    parts = [f"GPU{device.index}"]
    if device.total and device.used is not None:
        parts.append(f"{meter(device.used / device.total)} {gib(device.used)}/{gib(device.total)} GiB")
    if device.engine_bytes is not None:
        parts.append(f"engine {gib(device.engine_bytes)}")
    if device.utilization is not None:
        parts.append(f"{device.utilization}%")
    if device.temperature is not None:
        parts.append(f"{device.temperature}°C")
    if device.power is not None:
        parts.append(f"{device.power:.0f} W")
    return " ".join(parts)


def memory_text(view: MemoryView | None) -> str:
    """Video memory per GPU, or host memory and the words "no NVIDIA GPU"."""
    if view is None:
        return "memory …"
    if isinstance(view.gpus, GpuSnapshot) and view.gpus.devices:
        return " │ ".join(device_text(device) for device in view.gpus.devices)
    host = view.host
    text = f"no NVIDIA GPU  RAM {meter(host.used / max(host.total, 1))} {gib(host.used)}/{gib(host.total)} GiB"
    return text + (f" engine {gib(view.engine_host_bytes)}" if view.engine_host_bytes else "")


def turn_text(turn: Turn | None, last: Session | None, report: LoadReport | None) -> str:
    """Live tokens per second, time to first token and context used; of the last answer when none runs."""
    window = report.context_window if report is not None else 0
    if turn is not None:
        first = turn.time_to_first_token
        return _figures(turn.tokens_per_second, first, turn.prompt_tokens + turn.tokens, window)
    answers = [m for m in (last.branch() if last else []) if m.statistics is not None]
    if not answers or answers[-1].statistics is None:
        return f"window {window}" if window else ""
    cost = answers[-1].statistics
    return _figures(cost.tokens_per_second, cost.prefill_seconds, cost.prompt_tokens + cost.new_tokens, window)


def _figures(speed: float, first: float | None, used: int, window: int) -> str:
    parts = []
    if speed:
        parts.append(f"{speed:.1f} tok/s")
    if first is not None:
        parts.append(f"first {first:.2f} s")
    if used:
        parts.append(f"ctx {used}/{window}" if window else f"ctx {used}")
    return "  ".join(parts)


def status_line(memory: str, model: str, figures: str, width: int) -> Content:
    """Lay the status bar out; when it is narrow the kernel goes, then the time to the first word, then the speed."""
    parts = [part for part in figures.split("  ") if part]
    speed_and_context = "  ".join(part for part in parts if not part.startswith("first"))
    everything = "  ".join(part for part in (model, figures) if part)
    for right in (everything, figures or model, speed_and_context, "".join(parts[-1:]), ""):
        gap = width - 2 - len(memory) - len(right)
        if gap >= 2 or not right:
            return Content(f" {memory}{' ' * max(gap, 0)}{right} ")
    return Content(memory)


def load_line(status: LoadStatus) -> Content:
    """A load under way: stage, how far, and how long the stage has taken."""
    parts = [f" Loading {clean(status.model.name, newlines=False)}: {status.stage}"]
    if status.total:
        done, total = status.done, status.total
        count = f"{format_bytes(done)} of {format_bytes(total)}" if status.unit == "bytes" else f"{done} of {total}"
        parts.append(f"{meter(done / total, 12)} {count}")
    elapsed = time.monotonic() - status.stage_since
    if elapsed >= 2:
        parts.append(f"{elapsed:.0f} s")
    return Content.styled("  ".join(parts), "$warning")


def turn_line(turn: Turn | None, waiting: int, elsewhere: bool) -> Content:
    """What this session is waiting for, and how to stop it."""
    if turn is not None and not elsewhere:
        words = {"prefill": "Reading the prompt", "decoding": "Answering", "stopping": "Stopping"}[turn.stage]
        if turn.stage == "prefill" and turn.prompt_tokens:
            words += f" ({turn.prefill_done} of {turn.prompt_tokens} tokens)"
        hint = "" if turn.stage == "stopping" else "  Esc stops"
        more = f"  {waiting} more waiting" if waiting else ""
        return Content.assemble((f" {words}", "$accent"), (hint + more, "dim"))
    if waiting:
        behind = " behind another session" if elsewhere else ""
        return Content.assemble((f" {waiting} waiting{behind}", "$warning"), ("  Esc takes the last one back", "dim"))
    return Content()
