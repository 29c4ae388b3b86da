"""Why a server did not start, told from its log: known causes with what to do, else its own last error."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantchat.domain.text import shortened
from quantchat.errors import ErrorReport
from quantchat.services.serving.causes import CAUSES, Cause

SHOWN_LINES = 6
LONGEST_LINE = 400
FITTING = re.compile(r"estimated maximum model length is (\d+)")
LEAST_CONTEXT = 512
"""A shorter one is no use for a chat."""

_ERROR = re.compile(r"(?:^|[\s\]])((?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit)): (.+)")
_WRAPPER = re.compile(r"Engine core initialization failed|EngineCore failed to start|See root cause above")
_PREFIX = re.compile(r"^(\([^)]*pid=[^)]*\) )*((INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")


def explain(lines: Sequence[str], status: int, log: str) -> ErrorReport:
    """Say why a server ended.

    Args:
        lines: The end of its log.
        status: Its exit status; 128 and more is a signal.
        log: Where the log is.
    """
    text = "\n".join(_PREFIX.sub("", line) for line in lines)
    for cause in CAUSES:
        if found := cause.pattern.search(text):
            return _report(cause, found, log)
    last = root_error(lines) or _how(status)
    tail = "\n".join(shortened(line, LONGEST_LINE) for line in lines[-SHOWN_LINES:])
    return ErrorReport(
        code="serve",
        title="The server ended by itself",
        detail=f"{last}\n\nThe end of its log ({log}):\n{tail}" if tail else last,
    )


def _report(cause: Cause, found: re.Match[str], log: str) -> ErrorReport:
    groups = [shortened(group, LONGEST_LINE) for group in found.groups() if group is not None] or ["it"]
    groups += [""] * 2
    detail, remedy = (text.format(*groups) for text in (cause.detail, cause.remedy))
    return ErrorReport(code=cause.code, title=cause.title, detail=detail, remedy=f"{remedy}. The log is {log}")


def root_error(lines: Sequence[str]) -> str:
    """Return the last error that is no wrapper of another, as Python wrote it; empty if there is none."""
    found = [match for line in lines if (match := _ERROR.search(line)) and not _WRAPPER.search(line)]
    return shortened(f"{found[-1][1]}: {found[-1][2]}", LONGEST_LINE) if found else ""


def fitting_context(report: ErrorReport, lines: Sequence[str]) -> int | None:
    """Return the context for which vLLM found room after it had refused a longer one; None if that is no use."""
    found = FITTING.search("\n".join(lines)) if report.code == "context-too-long" else None
    return int(found[1]) if found and int(found[1]) >= LEAST_CONTEXT else None


def _how(status: int) -> str:
    if status == 128 + 9:
        return "It was killed (SIGKILL), which often means that the host's memory ran out"
    return f"It was ended by signal {status - 128}" if status > 128 else f"It ended with exit status {status}"
