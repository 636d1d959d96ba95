"""A server of shards over HTTP that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Answer", "Server", "whole"]

Answer = Callable[["Handler", bytes], None]
"""How a request for a file is answered."""


class Handler(BaseHTTPRequestHandler):
    """Answers for one connection."""

    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Answer as the server was told to."""
        if (body := self._body()) is not None:
            self.server.owner.answer()(self, body)

    def do_HEAD(self) -> None:
        """The headers of a file."""
        if (body := self._body()) is not None:
            self.tell(200, len(body))

    def tell(self, status: int, size: int) -> None:
        """Send the headers for a body of some size."""
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def _body(self) -> bytes | None:
        file = self.server.owner.folder / self.path.removeprefix("/shards/")
        if file.is_file():
            return file.read_bytes()
        self.send_error(404)
        return None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: Server, port: int) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no news here."""
        del request, client_address


def whole(handler: Handler, body: bytes) -> None:
    """The file as it is."""
    handler.tell(200, len(body))
    handler.wfile.write(body)


class Server:
    """Serves a folder until it is stopped; it can be started again at the same address.

    Args:
        folder: The shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = 0
        self.mended = threading.Event()
        self._fault, self._span = whole, range(0)
        self._lock = threading.Lock()
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where the shards are."""
        return f"http://127.0.0.1:{self._port}/shards"

    def misbehave(self, fault: Answer, span: range) -> None:
        """Answer requests of these numbers so; the first is number 0."""
        self.mended.clear()
        self._fault, self._span = fault, span

    def mend(self) -> None:
        """Answer all requests well from now on, and let go of those that wait."""
        self._span = range(0)
        self.mended.set()

    def answer(self) -> Answer:
        """How the next request is to be answered."""
        with self._lock:
            number, self.served = self.served, self.served + 1
        return self._fault if number in self._span else whole

    def start(self) -> None:
        """Listen."""
        self._listener = _Listener(self, self._port)
        self._port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._listener.shutdown()
        self._listener.server_close()
