"""The hub as the download process sees it: huggingface_hub's API, addresses and token, over a session of our own.

Only the download process imports this module and its neighbours `refusals` and `xet`, and with them huggingface_hub.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import constants, get_token, hf_hub_url, set_client_factory
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from quantchat.domain.text import shortened, without_surrogates
from quantchat.errors import FetchError
from quantchat.services.pull.files import RemoteFile
from quantchat.services.pull.names import Wanted
from quantchat.services.pull.refusals import (
    HTTP,
    LOGIN,
    RangeRefused,
    Retry,
    explained,
    no_proxy,
    senseless,
    shown,
)
from quantchat.services.pull.words import Hit

_COMMIT = re.compile(r"[A-Za-z0-9]{1,64}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TOKEN = re.compile(r"[!-~]+")
_BEGINNING = re.compile(r"bytes (\d+)-")


def prepare() -> None:
    """Make the session, before anything else is asked of the hub.

    Raises:
        FetchError: if this machine's settings rule it out.
    """
    if constants.HF_HUB_OFFLINE:
        detail = "nothing is downloaded while it is, or TRANSFORMERS_OFFLINE"
        raise FetchError("HF_HUB_OFFLINE is set", detail, "Unset both and try again", code="offline")
    if not _TOKEN.fullmatch(_token() or "-"):
        detail = "it holds spaces or signs that no token has"
        raise FetchError("Your token is damaged", detail, f"Copy it again and {LOGIN}", code="unauthorized")
    try:
        _session()
    except OSError as error:
        remedy = "Look at SSL_CERT_FILE and SSL_CERT_DIR"
        raise FetchError("The certificates cannot be read", shown(error), remedy, code="certificate") from error
    except (ImportError, ValueError, HTTP.InvalidURL) as error:
        raise no_proxy(shown(error)) from error
    set_client_factory(_client)


def _token() -> str | None:
    try:
        found: str | None = get_token()
    except (OSError, ValueError) as error:
        detail = f"{constants.HF_TOKEN_PATH}: {getattr(error, 'strerror', None) or 'it holds no text'}"
        raise FetchError(
            "Your token cannot be read", detail, f"Delete that and {LOGIN}", code="unauthorized"
        ) from error
    return found


@functools.cache
def _session() -> Any:
    # Not huggingface_hub's: it closes its own, under whoever reads from it, when one request fails to connect.
    return _client()


def _client() -> Any:
    # A limit for requests that name none: huggingface_hub would wait for ever.
    return HTTP.Client(follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)


def list_repository(wanted: Wanted) -> tuple[str, list[RemoteFile], bool]:
    """Return commit and files of a repository, and whether it is gated.

    Raises:
        FetchError: if it cannot be had.
        Retry: if the hub may answer later.
    """
    # Late: a download process does without this large module.
    from huggingface_hub import HfApi

    with explained(wanted):
        api = HfApi(library_name="quantchat")
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        info = api.model_info(wanted.repository, revision=wanted.revision, files_metadata=True, timeout=timeout)
        files = [_remote_file(sibling) for sibling in info.siblings or ()]
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        raise senseless("it names no commit")
    if len({file.path for file in files}) < len(files):
        raise senseless("it names a file twice")
    return info.sha, files, bool(info.gated)


def _remote_file(sibling: Any) -> RemoteFile:
    path, size, lfs = str(sibling.rfilename), int(sibling.size or 0), sibling.lfs
    file = RemoteFile(path, size, str(sibling.blob_id or ""), str(lfs.sha256 or "") if lfs is not None else "")
    if not _is_storable(path):
        raise FetchError("The hub names a file that cannot be stored", shortened(repr(path), 100), code="senseless")
    if not _ETAG.fullmatch(file.etag) or size < 0:
        raise senseless(f"it gives no size or checksum of {shortened(path, 100)}")
    return file


def _is_storable(path: str) -> bool:
    """Whether a name leads into the folder of the repository, in the one way in which it can be written."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path or path != str(parts) or path == ".":
        return False
    return bool(without_surrogates(path) == path)


def search(words: str, limit: int) -> tuple[Hit, ...]:
    """Find models by words of their names, most downloaded first.

    Raises:
        FetchError, Retry: as above.
    """
    query: dict[str, str | int] = {"search": words, "sort": "downloads", "direction": -1, "limit": limit}
    # Not by HfApi.list_models: it waits for ever, and takes the token along to further pages wherever they are.
    with explained(None):
        headers = build_hf_headers(library_name="quantchat")
        answer = _session().get(f"{constants.ENDPOINT}/api/models", params=query, headers=headers)
        hf_raise_for_status(answer)
        return tuple(_hit(model) for model in without_surrogates(answer.json())[:limit])


def _hit(model: dict[str, Any]) -> Hit:
    return Hit(
        repository=str(model["id"]),
        downloads=int(model.get("downloads") or 0),
        likes=int(model.get("likes") or 0),
        gated=bool(model.get("gated")),
        tags=tuple(map(str, model.get("tags") or ())),
    )


def file_url(wanted: Wanted, commit: str, path: str) -> str:
    """Return the address of a file of a commit."""
    return str(hf_hub_url(wanted.repository, path, revision=commit))


@contextlib.contextmanager
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
    with explained(wanted, planned=True), _session().stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            raise RangeRefused
        hf_raise_for_status(response)
        yield response.iter_bytes(), _heeds(response, begin)


def _heeds(response: Any, begin: int) -> bool:
    if response.status_code != 206:
        return False
    found = _BEGINNING.match(response.headers.get("content-range") or "")
    if not found or int(found[1]) != begin:
        raise Retry("the server sends another part of the file than was asked for")
    return True


def read_range(wanted: Wanted, url: str, begin: int, end: int) -> bytes:
    """Return bytes `begin` up to `end` of a file, or as many as there are.

    Raises:
        FetchError, Retry: as above.
    """
    found, skip = bytearray(), 0
    with contextlib.suppress(RangeRefused), open_range(wanted, url, begin, end) as (pieces, heeded):
        skip = 0 if heeded else begin
        for piece in pieces:
            found += piece
            if len(found) >= skip + end - begin:
                break
    return bytes(found[skip : skip + end - begin])
