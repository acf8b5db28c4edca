"""Whether a server is there, known without a new connection for each call."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


class Line:
    """A TCP connection to a server's address that carries nothing. Thread-safe.

    gRPC keeps trying to reach a server that is away until its timeout. This connection shows it at once:
    the server closes it when it stops, and after about two minutes of silence, when a new one is made.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._parts = urlsplit(address)
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def check(self) -> None:
        """Raise `OSError` if nothing listens at the address; a Unix socket is not looked at."""
        known = self._socket  # read once: another thread may be closing it
        if self._parts.scheme == "unix" or (known and _is_open(known)):
            return
        self.close()
        port = self._parts.port or (443 if self._parts.scheme == "https" else 19530)
        address = (self._parts.hostname or "localhost", port)
        line = socket.create_connection(address, self._timeout)
        line.setblocking(False)
        self._socket = line

    def close(self) -> None:
        """End the connection; the next check makes a new one."""
        line, self._socket = self._socket, None
        if line:
            line.close()


def _is_open(line: socket.socket) -> bool:
    """Return whether the other end has not closed the connection; what it sent is discarded."""
    try:
        while line.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
