"""What goes wrong with a server, in words: every error of the client and of the connection becomes one report."""

from __future__ import annotations

import errno
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from quantchat.domain.text import shortened
from quantchat.engine.backends.server.connection import Connection
from quantchat.errors import EngineError, ErrorReport

LONGEST = 300
"""Characters of what a server says that are shown."""
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_BUSY = frozenset({429, 503, 529})


class ServerFault(EngineError):
    """A server did not do what it was asked.

    Attributes:
        passing: The same request may well go right a moment later.
        wait: Seconds that the server asks to wait, if it does.
        status: HTTP status, 0 without one.
        said: The server's own words.
    """

    code = "server"

    def __init__(
        self, report: ErrorReport, *, passing: bool = False, wait: float | None = None, status: int = 0, said: str = ""
    ) -> None:
        super().__init__(report.title, report.detail, report.remedy, code=report.code)
        self.passing, self.wait, self.status, self.said = passing, wait, status, said


def fault_of(error: Exception, connection: Connection) -> ServerFault:
    """Explain an exception of a request."""
    if isinstance(error, ServerFault):
        return error
    if isinstance(error, APIStatusError):
        return _status_fault(error, connection)
    if isinstance(error, APITimeoutError) or _caused_by(error, httpx2.TimeoutException, TimeoutError):
        detail = f"Nothing came from {connection.host} for too long."
        remedy = "Look whether it is overloaded; send again."
        return ServerFault(_report("server-timeout", "The server does not answer", detail, remedy), passing=True)
    if isinstance(error, APIConnectionError | httpx2.TransportError | OSError):
        return _connection_fault(error, connection)
    if isinstance(error, APIError):
        return spoken_fault(said_in(error.body) or error.message, connection)
    return ServerFault(
        _report(
            "server-words",
            "The server answered with something else than asked for",
            _short(connection.redacted(str(error))),
            "Check that the address in the settings is an OpenAI-compatible API.",
        )
    )


def spoken_fault(said: str, connection: Connection) -> ServerFault:
    """An error that came within a stream."""
    said = _short(connection.redacted(said))
    return ServerFault(_report("server-failed", "The server failed", said, "Its own log has the details."), said=said)


def cut_fault(connection: Connection, detail: str = "") -> ServerFault:
    """A stream that ended before the answer did."""
    detail = detail or f"{connection.host} closed it before the answer was complete."
    report = _report(
        "server-cut", "The connection to the server was cut", detail, "Continue the answer, or send again."
    )
    return ServerFault(report, passing=True)


def filtered_fault(connection: Connection) -> ServerFault:
    """An answer that the server does not let out; the same request gets no other."""
    detail = f"A filter at {connection.host} ended the answer."
    remedy = "Ask in other words; what is filtered there is set at the server."
    return ServerFault(_report("server-filtered", "The server filtered the answer", detail, remedy))


def page_fault(connection: Connection) -> ServerFault:
    """A page for people in place of an answer, as from a proxy that wants a login."""
    detail = f"{connection.url} answered with a web page."
    remedy = "Check the address in the settings, and whether something stands between that asks for a login."
    return ServerFault(_report("server-address", "This is no model's address", detail, remedy))


def said_in(body: object) -> str:
    """Return the words of an error answer, whatever form it has."""
    match body:
        case {"error": {"message": str(message)}} | {"message": str(message)} | {"error": str(message)}:
            return message
        case {"detail": list(details)}:
            return "; ".join(_detail(detail) for detail in details)
        case {"detail": detail} | {"error": detail}:
            return str(detail)
        case str():
            return _TAGS.sub(" ", body)
        case _:
            return ""


def _detail(detail: object) -> str:
    """One complaint of a validator: where and what."""
    if not isinstance(detail, Mapping):
        return str(detail)
    place = ".".join(str(part) for part in detail.get("loc", ()) if part != "body")
    return f"{place}: {detail.get('msg', '')}".strip(": ")


def _status_fault(error: APIStatusError, connection: Connection) -> ServerFault:
    status, response = error.status_code, error.response
    said = _short(connection.redacted(said_in(error.body)))
    wait = retry_after(response.headers) if status in _BUSY else None
    report = _status_report(status, said, response.headers, connection)
    # The client has no word for it and reads the field of a body that is none.
    return ServerFault(report, passing=status in _BUSY or status >= 500, wait=wait, status=status, said=said)


def _status_report(status: int, said: str, headers: Mapping[str, str], connection: Connection) -> ErrorReport:
    host = connection.host
    words = said or f"{host} answered with status {status}."
    if 300 <= status < 400:
        where = _short(connection.redacted(headers.get("location", "another address")))
        remedy = "Put that address in the settings, if you trust it."
        return _report("server-address", "The server is at another address", f"It sends to {where}.", remedy)
    if status in (401, 403):
        remedy = "Check the key of this server in the settings."
        return _report("server-key", "The server refuses the key", words, remedy)
    if status in (404, 405):
        detail = said or f"{connection.url} knows no such path."
        remedy = "Check the address, which mostly ends with /v1, and the model's name."
        return _report("server-address", "The server does not know this address or model", detail, remedy)
    if status == 429:
        wait = retry_after(headers)
        remedy = f"Send again in {math.ceil(wait):,} s." if wait else "Send again later."
        return _report("server-busy", "The server takes no more requests now", words, remedy)
    if status >= 500:
        return _report("server-failed", "The server failed", words, "Its own log has the details; send again.")
    return _report("server-refused", "The server refused the request", words, "Its own log has the details.")


def _connection_fault(error: BaseException, connection: Connection) -> ServerFault:
    remedy = "Check that it runs, and its address in the settings."
    host = connection.host
    if _caused_by(error, httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
        return cut_fault(connection)
    if cause := _caused_by(error, ssl.SSLError):
        detail = f"{host} and this machine do not agree on encryption: {_short(str(cause))}"
        return ServerFault(_report("server-unreachable", "The server cannot be reached", detail, remedy))
    detail = f"{host}: {_reason(error)}."
    return ServerFault(_report("server-unreachable", "The server cannot be reached", detail, remedy), passing=True)


def _reason(error: BaseException) -> str:
    if _caused_by(error, socket.gaierror):
        return "no such host"
    if isinstance(error, OSError) and error.errno:
        return _errno_words(error.errno)
    found = next((cause.errno for cause in _causes(error) if isinstance(cause, OSError) and cause.errno), None)
    return _errno_words(found) if found else _short(str(next(iter(_causes(error)), error))) or "no connection"


def _errno_words(number: int) -> str:
    known = {
        errno.ECONNREFUSED: "nothing listens there",
        errno.EHOSTUNREACH: "no way to that host",
        errno.ENETUNREACH: "no way to that network",
        errno.ETIMEDOUT: "no answer",
    }
    return known.get(number, errno.errorcode.get(number, str(number)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions behind one, groups of them opened."""
    seen: set[int] = set()
    waiting = [error.__cause__ or error.__context__]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions


def _caused_by(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    return next((one for one in (error, *_causes(error)) if isinstance(one, kinds)), None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait, given as a number or as a date."""
    import time
    from email.utils import parsedate_to_datetime

    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
        if value and unit == 1.0:
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except (ValueError, OverflowError):
                return None
    return None


def _report(code: str, title: str, detail: str, remedy: str) -> ErrorReport:
    return ErrorReport(code=code, title=title, detail=detail, remedy=remedy)


def _short(text: str) -> str:
    return shortened(text, LONGEST)
