"""What the status bar, the header and the activity line say: plain functions from state to text."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content

from quantchat.domain.chat import Session
from quantchat.domain.memory import GIB, format_bytes
from quantchat.domain.servers import split_path
from quantchat.domain.text import clean
from quantchat.engine.protocol import LoadReport, ServerState
from quantchat.hardware.gpu import GpuDevice, GpuSnapshot
from quantchat.services.context import Measured
from quantchat.services.library import LoadStatus
from quantchat.services.memory import MemoryView
from quantchat.services.turns import Turn
from quantchat.ui.widgets.rows import cut_end, shorten

BAR = 8
_TITLE = 15
"""Cells that a note in the header leaves to the title, with the gaps."""
_PRESET, _PRESET_FROM = 16, 60
"""Cells that a preset and the marks beside it may take in the header at least, and from which width on."""
NARROW_COLUMNS = 100
"""Below this the status bar has no room for the kernel beside everything else."""


def meter(share: float, cells: int = BAR) -> str:
    """Draw a share of 0 to 1 as a bar."""
    full = round(min(max(share, 0.0), 1.0) * cells)
    return "█" * full + "░" * (cells - full)


def kernel_name(kernel: str) -> str:
    """A kernel's name without what the row already says: `gptq_torch_cpu_avx512` becomes `avx512`."""
    for prefix in ("gptq_", "awq_", "torch_cpu_", "torch_"):
        kernel = kernel.removeprefix(prefix) or kernel
    return kernel


def model_text(report: LoadReport) -> str:
    """By what the loaded model runs, and where; of a server its name, as its host stands elsewhere."""
    return _runner(report) if split_path(report.path) else f"{kernel_name(report.kernel)} {report.device}"


def _runner(report: LoadReport) -> str:
    server, _ = split_path(report.path) or ("", "")
    return clean(server, newlines=False) or kernel_name(report.kernel)


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


def memory_texts(view: MemoryView | None) -> tuple[str, ...]:
    """Video memory per GPU, or host memory and the words "no NVIDIA GPU"; the most telling first, the shortest last."""
    if view is None:
        return ("memory …",)
    if isinstance(view.gpus, GpuSnapshot) and view.gpus.devices:
        return _gpu_texts(view.gpus.devices)
    host = view.host
    used = f"{gib(host.used)}/{gib(host.total)} GiB"
    text = f"no NVIDIA GPU  RAM {meter(host.used / max(host.total, 1))} {used}"
    engine = f" engine {gib(view.engine_host_bytes)}" if view.engine_host_bytes else ""
    return (text + engine, text, f"no NVIDIA GPU  RAM {used}", f"RAM {used}")


def _gpu_texts(devices: Sequence[GpuDevice]) -> tuple[str, ...]:
    full = " │ ".join(map(device_text, devices))
    known = [device for device in devices if device.total and device.used is not None]
    if not known:
        return (full,)
    used, total = sum(device.used or 0 for device in known), sum(device.total or 0 for device in known)
    bars = " │ ".join(f"GPU{d.index} {meter((d.used or 0) / (d.total or 1))} {_share(d)}" for d in known)
    plain = " │ ".join(f"GPU{d.index} {_share(d)}" for d in known)
    name = f"{len(devices)} GPUs" if len(devices) > 1 else "GPU"
    return (full, bars, plain, f"{name} {used / GIB:.0f}/{total / GIB:.0f} GiB")


def _share(device: GpuDevice) -> str:
    return f"{gib(device.used or 0)}/{gib(device.total or 0)} GiB"


def server_texts(host: str, state: ServerState | None, view: MemoryView | None) -> tuple[str, ...]:
    """The server of the loaded model, the most telling first; with this machine's GPUs where it runs beside them."""
    place = clean(host, newlines=False)
    if state is None:
        return (place,)
    if not state.healthy:
        return (f"{place}  reconnecting …", "reconnecting …")
    requests = [f"{count} {word}" for count, word in ((state.running, "running"), (state.waiting, "waiting")) if count]
    if state.running == 0 and not state.waiting:
        requests = ["idle"]
    cache, hits = state.cache_used, state.prefix_hits
    short = [*requests, *([f"KV {cache:.0%}"] if cache is not None else [])]
    full = [*requests, *([f"KV {meter(cache)} {cache:.0%}"] if cache is not None else [])]
    full += [f"prefix hits {hits:.0%}"] if hits is not None else []
    texts = ["  ".join((place, *full)), "  ".join((place, *short)), place]
    beside = is_here(host) and view is not None and isinstance(view.gpus, GpuSnapshot) and view.gpus.devices
    texts = [f"{texts[0]} │ {memory_texts(view)[1]}", *texts] if beside else texts
    return tuple(dict.fromkeys(texts))


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    name = host.rpartition(":")[0] or host
    return name in ("localhost", "[::1]") or name.startswith("127.")


def turn_text(
    turn: Turn | None,
    last: Session | None,
    report: LoadReport | None,
    others: int = 0,
    context: Measured | None = None,
) -> str:
    """Live tokens per second, time to first token and context used; of the last answer when none runs.

    `others` is how many other sessions are being answered, `context` what the next prompt was measured to take.
    """
    window = report.context_window if report is not None else 0
    if turn is not None:
        first = turn.time_to_first_token
        # Without the prompt's length, which some servers do not tell, the answer's says nothing of the context.
        used = turn.prompt_tokens + turn.tokens if turn.prompt_tokens else 0
        return _figures(turn.tokens_per_second, first, used, window, others)
    answers = [m for m in (last.branch() if last else []) if m.statistics is not None]
    measured = context.tokens if context is not None else 0
    if not answers or answers[-1].statistics is None:
        return "  ".join([*_running(others), *([f"ctx {measured}/{window}"] if window else [])])
    cost = answers[-1].statistics
    used = measured or (cost.context_tokens if cost.prompt_tokens else 0)
    return _figures(cost.tokens_per_second, cost.prefill_seconds, used, window, others)


def _figures(speed: float, first: float | None, used: int, window: int, others: int) -> str:
    parts = []
    if speed:
        parts.append(f"{speed:.1f} tok/s")
    parts += _running(others)
    if first is not None:
        parts.append(f"TTFT {first:.2f} s")
    if used:
        parts.append(f"ctx {used}/{window}" if window else f"ctx {used}")
    return "  ".join(parts)


def _running(others: int) -> list[str]:
    return [f"+{others} answering"] if others else []


def status_line(memories: Sequence[str], model: str, figures: str, width: int, job: Sequence[str] = ()) -> Content:
    """Lay the status bar out.

    When it is narrow the kernel goes, then the time to the first word, then details of the memory, then the speed, and
    last words of the job that runs behind the chat, which is given in ever fewer words.
    """
    parts = [part for part in (*figures.split("  "), *job[:1]) if part]
    figures = "  ".join(parts)
    running = "  ".join(part for part in parts if not part.startswith("TTFT")) or model
    full, *shorter = memories
    everything = "  ".join(part for part in (model, figures) if part)
    choices = [(full, everything), (full, figures or model), *((memory, running) for memory in memories)]
    choices += [(memory, "".join(parts[-1:])) for memory in memories]
    choices += [(memories[-1], words) for words in job[1:]]
    for memory, right in choices:
        gap = width - 2 - cell_len(memory) - cell_len(right)
        if gap >= 2:
            return Content(f" {memory}{' ' * gap}{right} ")
    return Content(f" {(shorter or [full])[-1]}")


def header_line(title: str, report: LoadReport | None, note: str, width: int, preset: str = "") -> Content:
    """The session's title, the model and the sampling preset; on a narrow screen also the kernel.

    Elsewhere the status bar has room for the kernel.
    """
    model = clean(report.name, newlines=False) if report else "no model"
    if report is not None and width < NARROW_COLUMNS:
        model += f" · {_runner(report)}"
    room = max(_PRESET, width // 3)
    sampling = f"  {cut_end(clean(preset, newlines=False), room)}" if preset and width >= _PRESET_FROM else ""
    taken = cell_len(note) + cell_len(sampling)
    model = shorten(model, max(min(width * 2 // 3, width - taken - _TITLE), 8))
    space = width - cell_len(model) - taken - 3
    title = cut_end(clean(title, newlines=False), max(space, min(width // 3, 12)))
    return Content.assemble(
        " ", (title, "bold"), "  ", (model, "$text-accent"), (sampling, "$text-secondary"), (note, "$error")
    )


def load_line(status: LoadStatus) -> Content:
    """A load under way: stage, how far, and how long the stage has taken."""
    parts = [f" Loading {clean(status.model.name, newlines=False)}: {clean(status.stage, newlines=False)}"]
    if status.total:
        done, total = status.done, status.total
        count = f"{format_bytes(done)} of {format_bytes(total)}" if status.unit == "bytes" else f"{done} of {total}"
        parts.append(f"{meter(done / total, 12)} {count}")
    elapsed = time.monotonic() - status.stage_since
    if elapsed >= 2:
        parts.append(f"{elapsed:.0f} s")
    if status.note:
        parts.append(clean(status.note, newlines=False))
    return Content.styled("  ".join(parts), "$warning")


def refusal_line(context: Measured | None) -> Content:
    """Why what stands in the prompt cannot be sent to this model."""
    if context is None or context.refusal is None:
        return Content()
    return Content.styled(f" {clean(context.refusal.sentence(), newlines=False)}", "$warning")


def note_line(note: str) -> Content:
    """What is to be known while no model is loaded."""
    return Content.styled(f" {clean(note, newlines=False)}", "dim") if note else Content()


def with_note(line: Content, note: str) -> Content:
    """A line with a note behind it; an empty one gets none."""
    return Content.assemble(line, (f"  {clean(note, newlines=False)}", "$warning")) if line and note else line


def turn_line(turn: Turn | None, waiting: int, others: int) -> Content:
    """What this session is waiting for, and how to stop it; `others` are being answered as well."""
    if turn is not None:
        words = {"prefill": _reading(turn), "decoding": "Answering", "stopping": "Stopping"}[turn.stage]
        hint = "" if turn.stage == "stopping" else "  Esc stops"
        more = f"  {waiting} more waiting" if waiting else ""
        return Content.assemble((f" {words}", "$accent"), (hint + more, "dim"))
    if waiting:
        behind = f" behind {others} other sessions" if others > 1 else " behind another session" if others else ""
        return Content.assemble((f" {waiting} waiting{behind}", "$warning"), ("  Esc takes the last one back", "dim"))
    return Content()


def _reading(turn: Turn) -> str:
    """How far the prompt has been read, and how much of it was there already."""
    if not turn.prompt_tokens:
        return "Reading the prompt"
    reused = f" ({turn.reused:,} reused)" if turn.reused else ""
    return f"Reading {turn.prefill_done:,} of {turn.prompt_tokens:,} tokens{reused}"
