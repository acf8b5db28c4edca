"""A host of pictures on loopback, as a table of an import names one."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PICTURE = b"\xff\xd8 a picture \xff\xd9"
BIG = 1024 * 1024 + 1


@dataclass
class PictureHost:
    """What it was asked for: paths and headers; `pictures` are its contents by path."""

    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        return [path for path, _headers in self.asked]


@contextmanager
def picture_host(certificate: Path | None = None) -> Iterator[PictureHost]:
    host = PictureHost()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append((self.path, dict(self.headers)))
            path, _mark, to = self.path.partition("?to=")
            if path == "/redirect":
                return self.answer(302, b"", {"Location": to, "Set-Cookie": "seen=1"})
            if path == "/loop":
                return self.answer(302, b"", {"Location": "/loop"})
            if path == "/declared":
                return self.answer(200, b"", {"Content-Length": str(BIG)})
            if path == "/endless":
                return self.answer(200, b"x" * BIG)
            if path in ("/drip", "/broken"):
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
                for _piece in range(40 if path == "/drip" else 0):
                    time.sleep(0.05)
                    self.connection.sendall(b"")
                return None
            if path == "/headers":
                for piece in b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 20:
                    time.sleep(0.05)
                    self.connection.sendall(bytes([piece]))
                return None
            content = host.pictures.get(path, PICTURE if path == "/a.jpg" else b"")
            return self.answer(200 if content else 404, content)

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass  # the client left

    server = Server(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    host.url = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
