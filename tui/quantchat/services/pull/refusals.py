"""What the hub, the network and the machine's settings refuse, in plain words, and what is worth another try."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quantchat.domain.text import shortened
from quantchat.errors import FetchError
from quantchat.services.pull.names import Wanted

# The HTTP library behind huggingface_hub was renamed between versions: its errors are reached through the hub's own.
HTTP = sys.modules[HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]

LOGIN = "set HF_TOKEN to a token of your account, or run `hf auth login`"
AGAIN = "Run it again: what has arrived is kept"
LONGEST_WAIT = 300.0
SHOWN_REASON = 200
_USER = re.compile(r"//[^/@\s]*@")
_WINDOW = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")
"""`ratelimit: "api";r=0;t=55`: nothing is left of this window, which ends in 55 s."""


class Retry(Exception):
    """A request that may succeed when it is tried again, after some seconds if the server says how many."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RangeRefused(Exception):
    """There is nothing behind the place from which bytes were asked for."""


@contextmanager
def explained(wanted: Wanted | None, *, planned: bool = False) -> Iterator[None]:
    """Turn the hub library's errors into our own, most specific first.

    Args:
        wanted: What was asked for; None in a search.
        planned: Whether a commit is asked for that the hub has named before.

    Raises:
        FetchError: with what to do.
        Retry: for what may go well the next time.
    """
    try:
        yield
    except HfHubHTTPError as error:
        raise _of_status(error, wanted, planned) from error
    except (HTTP.RequestError, HTTP.InvalidURL) as error:
        raise _of_transport(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise senseless(shown(error)) from error


def _of_transport(error: Exception) -> Exception:
    match error:
        case HTTP.ProxyError():
            return no_proxy(shown(error))
        case HTTP.TimeoutException():
            return Retry(f"no byte came for {constants.HF_HUB_DOWNLOAD_TIMEOUT} s")
        case HTTP.TooManyRedirects():
            return FetchError("The hub redirects in a circle", "", look_at_endpoint(), code="redirects")
        case HTTP.UnsupportedProtocol() | HTTP.InvalidURL():
            detail = f"{endpoint()!r} or where it redirects to is none"
            return FetchError("The hub has no web address", detail, "Set HF_ENDPOINT to one like https://hub.example")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        remedy = "If your network has a certificate of its own, name its file in SSL_CERT_FILE"
        return FetchError("The hub's certificate is not trusted here", shown(error), remedy, code="certificate")
    return Retry(f"the connection failed: {shown(error)}")


def _of_status(error: HfHubHTTPError, wanted: Wanted | None, planned: bool) -> Exception:
    status = error.response.status_code
    if status in (408, 429) or status >= 500:
        said = f"the hub answers {status}" if status != 429 else "the hub asks for fewer requests"
        return Retry(said, _wanted_pause(error.response.headers))
    if status == 407:
        return no_proxy("it wants to know who you are")
    if wanted is None:
        return FetchError("The hub refuses the search", f"it answers {status}", look_at_endpoint())
    if planned and status in (404, 410) and not isinstance(error, RepositoryNotFoundError | GatedRepoError):
        detail = "the repository has changed meanwhile, or this mirror lacks a part of it"
        return FetchError(f"A file of {wanted} is not on the hub any more", detail, "Try again", code="changed")
    return _refusal(error, status, wanted)


def _refusal(error: HfHubHTTPError, status: int, wanted: Wanted) -> FetchError:
    name, page = wanted.repository, f"{endpoint()}/{wanted.repository}"
    if isinstance(error, GatedRepoError):
        who = "with the account of your token" if get_token() else f"in your browser, then {LOGIN}"
        detail = "its owner wants you to accept terms, or to ask, before files may be fetched"
        return FetchError(f"{name} is gated", detail, f"Open {page} and accept {who}; then try again", code="gated")
    if isinstance(error, DisabledRepoError):
        return FetchError(f"{name} is disabled", "its owner or the hub took it down", "Choose another", code="disabled")
    if isinstance(error, RevisionNotFoundError):
        remedy = f"Leave the revision out for main, or look at {page}/tree/main for branches and tags"
        return FetchError(f"{name} has no revision {wanted.revision}", "", remedy, code="revision-missing")
    if status == 401 and get_token():
        detail = "it may have expired, or be of another hub"
        return FetchError("The hub refuses your token", detail, f"Unset HF_TOKEN or {LOGIN}", code="unauthorized")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        detail = "there is none of that name, or it is private or gated and you are not known to the hub"
        remedy = f"Check the name; to reach what is yours, {LOGIN}"
        return FetchError(f"{name} was not found", detail, remedy, code="unauthorized" if status == 401 else "missing")
    if status == 403:
        detail = "your token lacks the right to read it" if get_token() else "it is not for everybody"
        return FetchError(f"The hub does not let you fetch {name}", detail, LOGIN[:1].upper() + LOGIN[1:])
    return FetchError(f"The hub refuses {wanted}", f"it answers {status}", look_at_endpoint())


def senseless(why: str) -> FetchError:
    """The error of an answer that no hub gives."""
    return FetchError("The hub's answer makes no sense", why, look_at_endpoint(), code="senseless")


def no_proxy(why: str) -> FetchError:
    """The error of a proxy that does not let us through."""
    remedy = "Look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
    return FetchError("The proxy refuses", why, remedy, code="proxy")


def gave_up(what: str, why: str) -> FetchError:
    """The error of a download that was retried long enough."""
    remedy = f"{AGAIN}. If it stays so, look at the network, at HTTPS_PROXY, or name a mirror in HF_ENDPOINT"
    return FetchError(f"{what} could not be fetched from {endpoint()}", why, remedy, code="stalled")


def look_at_endpoint() -> str:
    """The remedy where something answers that may be no hub."""
    return f"Look whether {endpoint()} is a model hub (HF_ENDPOINT)"


def endpoint() -> str:
    """Return the hub's address as it may be shown: without a password."""
    return _USER.sub("//", constants.ENDPOINT)


def shown(error: object) -> str:
    """Write an exception in one short line that holds no secret."""
    words = _USER.sub("//", str(error) or type(error).__name__)
    token = get_token()
    return shortened(words.replace(token, "…") if token else words, SHOWN_REASON)


def _wanted_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds for which the hub wants to be left alone, as a number, a date, or the rest of a window of requests."""
    window = _WINDOW.search(headers.get("ratelimit") or "")
    said = window[1] if window else (headers.get("retry-after") or "").strip()
    if said.isdecimal():
        return min(float(said), LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0), LONGEST_WAIT)
    except ValueError:
        return None
