"""Every error that quantchat shows, as one tree.

QuantchatError
├── UsageError               a wrong command line, setting or theme          exit 2
├── StorageError             the disk refused                                exit 3
│   ├── SessionUnreadable    a session file that does not parse
│   ├── SessionLocked        another process writes this session
│   ├── SessionNewer         a later quantchat wrote this session
│   └── SessionConflict      another process has changed this session meanwhile
├── ModelError               a folder that cannot be loaded, before loading  exit 4
├── EngineError              the engine process                              exit 5
│   ├── EngineGone           it died or was never started
│   ├── LoadError            a model that did not load
│   │   └── KernelError      its kernel cannot be built or run here
│   ├── GenerationError      a turn that failed
│   ├── JobError             a quantize or evaluate job that failed
│   └── ServeError           a server that cannot be started, or ended
├── FetchError               a download that did not arrive                  exit 6
└── Cancelled                the user said stop                              exit 130
"""

from __future__ import annotations

import msgspec


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """An error as data: crosses the engine pipe and is shown on the screen.

    Attributes:
        code: Stable machine name, such as `out-of-memory`.
        title: A few words for a heading.
        detail: What happened, in one or two sentences.
        remedy: What the user can do now; may be empty.
    """

    code: str
    title: str
    detail: str = ""
    remedy: str = ""

    def sentence(self) -> str:
        """Everything in one paragraph, for a log line or stderr."""
        title, detail, remedy = (part.rstrip(".") for part in (self.title, self.detail, self.remedy))
        # A detail that begins small goes on with the title; it may begin with the name of a file, too.
        goes_on = title and detail[:1].islower() and not title.endswith("?")
        what = (f"{title}: {detail}",) if goes_on else (title, detail)
        return " ".join(part if part.endswith("?") else f"{part}." for part in (*what, remedy) if part)


class QuantchatError(Exception):
    """Base of all errors that are explained to the user."""

    code = "error"
    exit_code = 1

    def __init__(self, title: str, detail: str = "", remedy: str = "", *, code: str | None = None) -> None:
        super().__init__(title)
        self.report = ErrorReport(code=code or self.code, title=title, detail=detail, remedy=remedy)

    @classmethod
    def from_report(cls, report: ErrorReport) -> QuantchatError:
        """Raise-able form of a report that came over the engine pipe."""
        return cls(report.title, report.detail, report.remedy, code=report.code)

    def __str__(self) -> str:
        return self.report.sentence()


class UsageError(QuantchatError):
    """The command line, a setting or a theme is wrong."""

    code = "usage"
    exit_code = 2


class StorageError(QuantchatError):
    """The disk refused to read or write."""

    code = "storage"
    exit_code = 3


class SessionUnreadable(StorageError):
    """A session file does not parse; it has been moved to quarantine."""

    code = "session-unreadable"


class SessionLocked(StorageError):
    """Another process holds the session for writing."""

    code = "session-locked"


class SessionNewer(StorageError):
    """A later quantchat wrote the session; it can be read here and not written."""

    code = "session-newer"


class SessionConflict(StorageError):
    """Another process has written the session since it was read here; both states must be merged."""

    code = "session-conflict"


class ModelError(QuantchatError):
    """A model folder cannot be loaded, known before any weight is read."""

    code = "model"
    exit_code = 4


class EngineError(QuantchatError):
    """The engine process failed."""

    code = "engine"
    exit_code = 5


class EngineGone(EngineError):
    """The engine process died or was never started."""

    code = "engine-gone"


class LoadError(EngineError):
    """A model did not load, or loaded wrongly and was refused."""

    code = "load"


class KernelError(LoadError):
    """The chosen kernel cannot be built or run here; another one may."""

    code = "kernel"


class GenerationError(EngineError):
    """A turn failed."""

    code = "generation"


class JobError(EngineError):
    """A quantize, convert or evaluate job failed."""

    code = "job"


class ServeError(EngineError):
    """A server for other programs cannot be started, or ended by itself."""

    code = "serve"


class FetchError(QuantchatError):
    """A download did not arrive."""

    code = "fetch"
    exit_code = 6


class Cancelled(QuantchatError):
    """The user stopped a job."""

    code = "cancelled"
    exit_code = 130


def explained(error: BaseException, kind: type[QuantchatError], title: str) -> ErrorReport:
    """Report an exception; foreign ones under the given kind."""
    if isinstance(error, QuantchatError):
        return error.report
    return kind(title, f"{type(error).__name__}: {str(error)[:500]}", "The log has the details.").report
