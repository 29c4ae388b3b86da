"""The hub as the download process sees it: huggingface_hub's session, token, endpoint, and its errors in plain words.

Only the download process imports this module; it is the only one that imports huggingface_hub.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from quantchat.domain.text import shortened
from quantchat.errors import FetchError
from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.names import Wanted
from quantchat.services.pull.words import Hit

# The HTTP library behind huggingface_hub was renamed between versions: its errors are reached through the hub's own.
_HTTP = sys.modules[HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
TransportError: type[Exception] = _HTTP.TransportError
TimeoutException: type[Exception] = _HTTP.TimeoutException
ProxyError: type[Exception] = _HTTP.ProxyError

LOGIN = "set HF_TOKEN to a token of your account, or run `hf auth login`"
AGAIN = "Run it again: what has arrived is kept"
LONGEST_WAIT = 300.0
SHOWN_REASON = 200
_COMMIT = re.compile(r"[A-Za-z0-9]{1,64}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Retry(Exception):
    """A request that may succeed when it is tried again, after some seconds if the server says how many."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class RangeRefused(Exception):
    """There is nothing behind the place from which bytes were asked for."""


def list_repository(wanted: Wanted) -> tuple[str, list[RemoteFile], bool]:
    """Return commit and files of a repository, and whether it is gated.

    Raises:
        FetchError: if it cannot be had.
        Retry: if the hub may answer later.
    """
    with explained(wanted):
        api = HfApi(library_name="quantchat")
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        info = api.model_info(wanted.repository, revision=wanted.revision, files_metadata=True, timeout=timeout)
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        raise _senseless("it names no commit")
    return info.sha, [_remote_file(sibling) for sibling in info.siblings or ()], bool(info.gated)


def _senseless(why: str) -> FetchError:
    return FetchError("The hub's answer makes no sense", why, _look_at_endpoint())


def _remote_file(sibling: object) -> RemoteFile:
    path, size, lfs = sibling.rfilename, sibling.size, sibling.lfs  # type: ignore[attr-defined]
    sha256 = str(lfs.sha256 or "") if lfs is not None else ""
    file = RemoteFile(str(path), int(size or 0), str(sibling.blob_id or ""), sha256)  # type: ignore[attr-defined]
    parts = PurePosixPath(file.path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in file.path or not _ETAG.fullmatch(file.etag):
        raise FetchError("The hub names a file that cannot be stored", shortened(repr(file.path), 100))
    return file


def search(words: str, limit: int) -> tuple[Hit, ...]:
    """Find models by words of their names, most downloaded first.

    Raises:
        FetchError, Retry: as above.
    """
    with explained(None):
        found = list(HfApi(library_name="quantchat").list_models(search=words, sort="downloads", limit=limit))
    return tuple(
        Hit(
            repository=str(model.id),
            downloads=int(model.downloads or 0),
            likes=int(model.likes or 0),
            gated=bool(model.gated),
            tags=tuple(map(str, model.tags or ())),
        )
        for model in found
    )


def impatient() -> None:
    """Give requests that name no time limit the usual one; the hub's own library would wait for ever."""
    get_session().timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT


def file_url(wanted: Wanted, commit: str, path: str) -> str:
    """Return the address of a file of a commit."""
    return str(hf_hub_url(wanted.repository, path, revision=commit))


@contextmanager
def open_range(
    wanted: Wanted, url: str, begin: int = 0, end: int | None = None
) -> Iterator[tuple[Iterator[bytes], bool]]:
    """Open bytes `begin` up to `end` of a file; give them in pieces, and whether the server heeded `begin`.

    Raises:
        FetchError: if the hub refuses.
        Retry: if the connection failed, stalled for `HF_HUB_DOWNLOAD_TIMEOUT` seconds, or the hub is busy.
        RangeRefused: if the file ends before `begin`.
    """
    headers = build_hf_headers(library_name="quantchat") | {"Accept-Encoding": "identity"}
    if begin or end is not None:
        headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with explained(wanted), get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code == 416:
            raise RangeRefused
        hf_raise_for_status(response)
        yield response.iter_bytes(), response.status_code == 206


def read_range(wanted: Wanted, url: str, begin: int, end: int) -> bytes:
    """Return bytes `begin` up to `end` of a file, or as many as there are.

    Raises:
        FetchError, Retry, RangeRefused: as above.
    """
    found = bytearray()
    with open_range(wanted, url, begin, end) as (pieces, heeded):
        skip = 0 if heeded else begin
        for piece in pieces:
            found += piece
            if len(found) >= skip + end - begin:
                break
    return bytes(found[skip : skip + end - begin])


@contextmanager
def explained(wanted: Wanted | None) -> Iterator[None]:
    """Turn the hub library's errors into our own, most specific first.

    Raises:
        FetchError: with what to do.
        Retry: for what may go well the next time.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise FetchError("HF_HUB_OFFLINE is set", "nothing is downloaded then", "Unset it and try again") from error
    except HfHubHTTPError as error:
        raise _of_status(error, wanted) from error
    except ProxyError as error:
        raise FetchError("The proxy refuses", shown(error), "Look at HTTPS_PROXY and NO_PROXY") from error
    except TimeoutException as error:
        raise Retry(f"no byte came for {constants.HF_HUB_DOWNLOAD_TIMEOUT} s") from error
    except TransportError as error:
        raise Retry(f"the connection failed: {shown(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _senseless(shown(error)) from error


def _of_status(error: HfHubHTTPError, wanted: Wanted | None) -> Exception:
    status = error.response.status_code
    if status in (408, 429) or status >= 500:
        said = f"the hub answers {status}" if status != 429 else "the hub asks for fewer requests"
        return Retry(said, _retry_after(error.response.headers))
    if wanted is None:
        return FetchError("The hub refuses the search", f"it answers {status}", _look_at_endpoint())
    return _refusal(error, status, wanted)


def _refusal(error: HfHubHTTPError, status: int, wanted: Wanted) -> FetchError:
    name, page = wanted.repository, f"{constants.ENDPOINT}/{wanted.repository}"
    if isinstance(error, GatedRepoError):
        who = "with the account of your token" if get_token() else f"in your browser, then {LOGIN}"
        detail = "its owner wants you to accept terms, or to ask, before files may be fetched"
        return FetchError(f"{name} is gated", detail, f"Open {page} and accept {who}; then try again", code="gated")
    if isinstance(error, RevisionNotFoundError):
        remedy = f"Leave the revision out for main, or look at {page}/tree/main for branches and tags"
        return FetchError(f"{name} has no revision {wanted.revision}", "", remedy, code="revision-missing")
    if isinstance(error, RemoteEntryNotFoundError):
        return FetchError(f"A file of {wanted} is gone", "the repository changed meanwhile", "Try again")
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
    return FetchError(f"The hub refuses {wanted}", f"it answers {status}", _look_at_endpoint())


def gave_up(what: str, why: str) -> FetchError:
    """The error of a download that was retried long enough."""
    remedy = f"{AGAIN}. If it stays so, look at the network, at HTTPS_PROXY, or name a mirror in HF_ENDPOINT"
    return FetchError(f"{what} could not be fetched from {constants.ENDPOINT}", why, remedy, code="stalled")


def _look_at_endpoint() -> str:
    return f"Look whether {constants.ENDPOINT} is a model hub (HF_ENDPOINT)"


def _retry_after(headers: object) -> float | None:
    said = str(headers.get("Retry-After") or "")  # type: ignore[attr-defined]
    return min(float(said), LONGEST_WAIT) if said.isdecimal() else None


def shown(error: Exception) -> str:
    """Write an exception in one short line."""
    return shortened(str(error) or type(error).__name__, SHOWN_REASON)
