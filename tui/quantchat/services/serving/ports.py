"""Ports to listen on, and this machine's address for others."""

from __future__ import annotations

import contextlib
import errno
import socket

from quantchat.errors import UsageError

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing is bound to these here
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def free_port(host: str, wanted: int = 0) -> int:
    """Return a port that nobody listens on now: the wanted one, where that is free.

    Raises:
        UsageError: if nothing can listen on the address.
    """
    with contextlib.suppress(UsageError), _bound(host, wanted) as listener:
        return int(listener.getsockname()[1])
    with _bound(host, 0) as listener:
        return int(listener.getsockname()[1])


def require_free(host: str, port: int) -> None:
    """Make sure that a server could listen there.

    Raises:
        UsageError: if not; names the process that does, where the system tells.
    """
    with _bound(host, port):
        return


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # As servers do: what a connection of the last one left behind keeps nobody out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            remedy = "End it, or choose another port with --port; without it a free one is found"
            raise UsageError(f"Port {port} is taken{_holder(port)}", remedy=remedy, code="port-in-use") from error
        raise UsageError(f"Nothing can listen on {host}, port {port}", str(error)) from error
    return listener


def _holder(port: int) -> str:
    """Name who listens on a port; other users' processes are not told of."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            at = connection.laddr[1] if connection.laddr else 0
            if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def reached_at(host: str) -> str:
    """Return the host by which a server on this machine is reached from this machine, as it stands in a URL."""
    host = ANYWHERE.get(host, host)
    return f"[{host}]" if ":" in host else host


def own_address() -> str:
    """Return the address under which other machines most likely reach this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "THIS_MACHINE"
        return str(probe.getsockname()[0])
