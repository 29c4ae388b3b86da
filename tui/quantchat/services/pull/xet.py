"""Bytes of a file out of the hub's chunk store, where the file and this machine have one; else it comes by HTTP.

`hf_xet` fetches the chunks of a file over many connections. It has no time limit of its own, so a stream that brings
nothing for a while is cancelled, and the file goes on by HTTP from where it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata
from huggingface_hub.utils import build_hf_headers

from quantchat.services.pull.names import Wanted
from quantchat.services.pull.refusals import Retry, explained, shown

PATIENCE = 3
"""Time limits of a request that a stream may be silent for; it may have to begin with a large chunk."""

_failed = threading.Event()
"""Set when the store failed once: every further file would only wait for the same."""


def is_wanted() -> bool:
    """Whether the chunk store may be used and has not failed yet."""
    if constants.HF_HUB_DISABLE_XET or _failed.is_set():
        return False
    try:
        import hf_xet  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def open_stream(wanted: Wanted, url: str, size: int, begin: int) -> Iterator[Iterator[bytes] | None]:
    """Give the bytes of a file from `begin` on; None if the chunk store does not have the file.

    Raises:
        FetchError, Retry: if the hub refuses or fails before there is a stream.
        Retry: if the store fails; it is not asked again.
    """
    headers = build_hf_headers(library_name="quantchat")
    with explained(wanted, planned=True):
        data = get_hf_file_metadata(url, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, headers=headers).xet_file_data
    if data is None:
        yield None
        return
    try:
        stream = _stream(data, headers, size, begin)
    except Exception as error:
        _failed.set()
        raise Retry(f"the chunk store failed: {shown(error)}") from error
    yield _pieces(stream)


def _stream(data: Any, headers: dict[str, str], size: int, begin: int) -> Any:
    from hf_xet import XetFileInfo, XetSession
    from huggingface_hub.utils._xet import refresh_xet_connection_info, xet_headers_without_auth

    info = refresh_xet_connection_info(file_data=data, headers=headers)
    group = XetSession().new_download_stream_group(
        endpoint=info.endpoint,
        token=info.access_token,
        token_expiry_unix_secs=info.expiration_unix_epoch,
        token_refresh_url=data.refresh_route,
        token_refresh_headers=headers,
        custom_headers=xet_headers_without_auth(headers),
    )
    return group.download_stream(XetFileInfo(data.file_hash, size), start=begin or None)


def _pieces(stream: Any) -> Iterator[bytes]:
    """Pass on what a stream brings; it is cancelled when it brings nothing for too long."""
    moved, over = threading.Event(), threading.Event()
    limit = PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT
    threading.Thread(target=_watch, args=(stream, moved, over, limit), daemon=True).start()
    try:
        for piece in stream:
            moved.set()
            yield bytes(piece)
    except Exception as error:
        _failed.set()
        raise Retry(f"the chunk store failed: {shown(error)}") from error
    finally:
        over.set()
        moved.set()
        stream.cancel()


def _watch(stream: Any, moved: threading.Event, over: threading.Event, limit: float) -> None:
    while moved.wait(limit):
        moved.clear()
        if over.is_set():
            return
    _failed.set()
    stream.cancel()
