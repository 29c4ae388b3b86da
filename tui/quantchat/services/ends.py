"""What the user is told of jobs that go on behind the chat, when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantchat.domain.text import plain
from quantchat.errors import ErrorReport
from quantchat.services.facts import Notice

if TYPE_CHECKING:
    from quantchat.services.pull.jobs import Job
    from quantchat.services.quantizing.job import QuantizeJob


def pulled(job: Job) -> Notice | None:
    """Tell of a download that failed or is there; None while it runs."""
    if job.error is not None:
        return Notice(report=job.error)
    if job.state != "done":
        return None
    words = ErrorReport(code="pulled", title=f"{job.name} is downloaded and checked")
    return Notice(report=words, severity="information")


def quantized(job: QuantizeJob) -> Notice | None:
    """Tell of a quantization that failed or made its model; None while it runs, and of one that was stopped."""
    state = job.state
    if state.ended == "failed" and state.error is not None:
        return Notice(report=state.error)
    if state.ended != "done":
        return None
    name = plain(job.preflight.output.name)
    words = ErrorReport(code="quantized", title=f"{name} is made", remedy="/quantize shows what came of it")
    return Notice(report=words, severity="information")
