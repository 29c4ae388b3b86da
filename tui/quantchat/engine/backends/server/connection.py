"""One server's HTTP: the OpenAI client, set up so that nothing is followed, retried or sent along by itself."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import msgspec
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, Omit

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
SILENCE_SECONDS = 600.0
"""A stream may be silent for so long: behind other people's requests, or in a long prompt."""
LARGEST_BODY = 16 << 20
"""Bytes of an answer that is no stream."""
_OWN_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
_NO_KEY = "none"
_LIMITS = httpx2.Limits(keepalive_expiry=2.0)
"""Less than the 5 s after which uvicorn closes a connection that nobody uses: a request must not meet that moment."""


class Connection:
    """Requests to one server.

    Attributes:
        url: Where its OpenAI API begins; `/v1` is added to an address without a path.
        root: Where its other paths begin, such as `/health`.
        host: Its name and port, to be shown.
    """

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url)
        self.url = (url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1").rstrip("/")
        self.root = self.url.removesuffix("/v1")
        self.host = parts.netloc.rpartition("@")[2]
        self._key = key
        # The client insists on a key, or on its being left out of each request by name.
        self._headers: dict[str, Any] = {} if key else {"Authorization": Omit()}
        own: dict[str, Any] = {name: Omit() for name in _OWN_HEADERS}
        self._client = AsyncOpenAI(
            # The client would take keys of the environment, which belong to somebody else's server.
            api_key=key or _NO_KEY,
            base_url=self.url,
            max_retries=0,
            default_headers=own,
            http_client=_http_client(parts.hostname or ""),
        )

    def redacted(self, text: str) -> str:
        """Take the key out of a text."""
        return text.replace(self._key, "…") if self._key else text

    async def get(self, path: str, seconds: float = ANSWER_SECONDS) -> httpx2.Response:
        """Get a path of the API, or with a leading slash one of the server.

        Raises:
            APIError: as the client does, also for 3xx.
        """
        options: Any = {"timeout": _timeout(seconds), "headers": self._headers}
        address = self._address(path)
        try:
            return await self._client.get(address, cast_to=httpx2.Response, options=options)
        except APITimeoutError:
            raise
        except APIConnectionError:
            # A connection that was kept open may have been closed there meanwhile; the next one is new.
            return await self._client.get(address, cast_to=httpx2.Response, options=options)

    async def post(self, path: str, body: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> Any:
        """Post JSON, as `get`; return the JSON that came back.

        Raises:
            APIError: as the client does.
            ValueError: if the answer is no JSON.
        """
        options: Any = {"timeout": _timeout(seconds), "headers": self._headers}
        address = self._address(path)
        return decoded(await self._client.post(address, cast_to=httpx2.Response, body=dict(body), options=options))

    def stream(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[Any]:
        """Open a streamed chat completion; leaving the context closes the connection, which ends the server's work.

        Raises:
            APIError: as the client does, on entering.
        """
        known = {"model": body["model"], "messages": body["messages"], "stream": True}
        extra = {name: value for name, value in body.items() if name not in known}
        completions = cast(Any, self._client.chat.completions.with_streaming_response)
        context = completions.create(
            **known, extra_body=extra, extra_headers=self._headers, timeout=_timeout(SILENCE_SECONDS)
        )
        return cast("AbstractAsyncContextManager[Any]", context)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _address(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else f"{self.url}/{path}"


def decoded(response: httpx2.Response) -> Any:
    """Read a JSON answer.

    Raises:
        ValueError: if it is none, or far too large.
    """
    if len(response.content) > LARGEST_BODY:
        raise ValueError(f"an answer of {len(response.content):,} bytes")
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=CONNECT_SECONDS)


def _http_client(host: str) -> httpx2.AsyncClient:
    local = is_loopback(host)
    # A transport of one's own would switch off the proxies of the environment.
    proxied = not local and bool(urllib.request.getproxies())
    transport = None if proxied else _transport(trust_env=not local)
    return httpx2.AsyncClient(follow_redirects=False, trust_env=not local, limits=_LIMITS, transport=transport)


def _transport(*, trust_env: bool) -> httpx2.AsyncHTTPTransport:
    return httpx2.AsyncHTTPTransport(socket_options=_socket_options(), trust_env=trust_env, limits=_LIMITS)


def _socket_options() -> list[tuple[int, int, int]]:
    """Let the kernel notice within 35 s that the other machine is gone, as behind a VPN that broke down."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    named = ((getattr(socket, name, None), seconds) for name, seconds in _KEEPALIVE)
    return options + [(socket.IPPROTO_TCP, option, seconds) for option, seconds in named if option is not None]
