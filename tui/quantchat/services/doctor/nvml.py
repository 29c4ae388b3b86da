"""The NVIDIA driver as a child process found it: one that hangs or crashes takes nothing else with it."""

from __future__ import annotations

import signal
import sys

import msgspec

from quantchat.hardware.driver import Answer, Driver
from quantchat.hardware.gpu import NotAvailable

SECONDS = 15.0
"""Without persistence mode a driver starts each card first, which takes it a second or two."""
COMMAND = (sys.executable, "-P", "-m", "quantchat.hardware.driver")
SILENT = f"the NVIDIA driver did not answer for {SECONDS:.0f} s"


def read_driver(status: int | None, out: str) -> Driver | NotAvailable:
    """Read what the child printed, or how it ended."""
    if status is None:
        return NotAvailable(SILENT)
    try:
        answer = msgspec.json.decode(out, type=Answer)
    except msgspec.MsgspecError:
        return NotAvailable(f"asking the NVIDIA driver ended the process that did ({ended(status)})")
    return answer.driver or NotAvailable(answer.reason)


def ended(status: int) -> str:
    """Name the signal or the status that a process ended with."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-status, f"signal {-status}") if status < 0 else f"status {status}"
