"""A page served to this machine only."""

from __future__ import annotations

import contextlib
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sparsefeat.errors import InputError

HOST = "127.0.0.1"


class PageServer:
    """Serves one page from a background thread until ``close()``.

    It listens on 127.0.0.1. The address has a random part, since other users of this machine reach that too.

    Args:
        page: the HTML.
        port: 0 for any free one.

    Attributes:
        port: the port it listens on.
        url: where the page is.

    Raises:
        InputError: the port is taken or out of range.
    """

    def __init__(self, page: str, port: int = 0):
        path = f"/{secrets.token_urlsafe(12)}/"
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(path, page.encode()))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port}: cannot be used ({error}); leave it out for a free one"
            ) from error
        self.port: int = self._server.server_address[1]
        self.url = f"http://{HOST}:{self.port}{path}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the server is closed, or on Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PageServer({self.url})"


def _handler(path: str, page: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A web site whose name was made to point here asks under its own name.
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                self.send_error(403, "for this machine only")
            elif self.path != path:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
                self.end_headers()
                # The browser may close the page at any time.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
